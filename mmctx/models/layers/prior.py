"""The prior of a contextual convolution, handed past the block that calls it on features alone."""

import threading

from torch import Tensor


class _OfThread(threading.local):
    """What each thread has been given, so that threads may share one network."""

    prior: Tensor | None = None


_of_thread = _OfThread()


def exchange_prior(prior: Tensor | None) -> Tensor | None:
    """Give this thread's contextual convolutions a prior, (B, P); returns what they had before."""
    before, _of_thread.prior = _of_thread.prior, prior
    return before


class using_prior:
    """Context in which this thread's calls of contextual convolutions get a prior.

    Contexts may lie within one another: the innermost counts.

    Args:
        prior (Tensor): (B, P).
    """

    # Not a generator, which would cost the host ten times as much at each block.
    __slots__ = ('before', 'prior')

    def __init__(self, prior: Tensor):
        self.prior = prior

    def __enter__(self) -> None:
        self.before = exchange_prior(self.prior)

    def __exit__(self, *_) -> None:
        exchange_prior(self.before)


class PriorConv:
    """Mixin of a convolution that needs a prior beside x.

    `nn.Conv2d` has to be a direct base beside it, as mmengine's initializers look no further.
    """

    def current_prior(self) -> Tensor:
        """The prior, (B, P), that `using_prior` hands over; a RuntimeError outside it."""
        prior = _of_thread.prior
        if prior is None:
            name = type(self).__name__
            raise RuntimeError(f'{name} needs a prior: call it inside `with using_prior(prior)`')
        return prior
