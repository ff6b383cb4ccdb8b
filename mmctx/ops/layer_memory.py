"""What a module remembers of its parts from call to call, until one of them changes.

Finding parameters, their types and launches anew at each call would take the host longer than
launching them.
"""

import weakref
from collections.abc import Callable, Iterable
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor, nn

_END = object()


class LayerMemory:
    """What was found out of a module, for as long as it has the same parts.

    Copies of a memory are empty: the parts of a copied module are others, and launches cannot be
    copied.
    """

    __slots__ = ('remembered',)

    def __init__(self):
        # One tuple, as threads may share a network. It does not keep the module itself alive, which
        # has this memory, and would hold its parameters until garbage is collected.
        self.remembered: tuple[weakref.ref, tuple, _Parts, Any] | None = None

    def __reduce__(self):
        return LayerMemory, ()

    def recall(self, module: nn.Module, options: tuple, look_up: Callable[[], Any]) -> Any:
        """What is known of a module with all that it contains.

        Args:
            module (nn.Module): The module.
            options (tuple): Other things that the result depends on.
            look_up (Callable): Finds it, as an object with the tensors that it contains in its
                attribute `tensors`, or None. It is called if anything has changed, and each time
                if a tensor is no parameter or buffer, but computed.
        """
        remembered = self.remembered
        if remembered is not None:
            of, with_options, parts, known = remembered
            if of() is module and with_options == options and parts.are_unchanged():
                return known
        known = look_up()
        parts = None if known is None else _Parts.of(module, known.tensors)
        self.remembered = None if parts is None else (weakref.ref(module), options, parts, known)
        return known


class _Parts(NamedTuple):
    """Parts of a module, and where they were found.

    Attributes:
        places (list[dict]): Parameters, buffers and children of each module by name.
        found (list): All of these, in order, and an end.
        tensors (list[Tensor]): Parameters and buffers.
        weights (list[Tensor]): The first parameter of each module, of the type of the others.
        norms (list[nn.Module]): Modules with an epsilon.
        state (tuple): What may change in parts that stay the same objects.
    """

    places: list[dict]
    found: list
    tensors: list[Tensor]
    weights: list[Tensor]
    norms: list[nn.Module]
    state: tuple

    @classmethod
    def of(cls, module: nn.Module, known: Iterable[Tensor]) -> '_Parts | None':
        """Parts of a module; None if known tensors are not among them."""
        each = [*module.modules()]
        places = [d for m in each for d in (m._parameters, m._buffers, m._modules) if d]
        found = [*chain.from_iterable(map(dict.values, places)), _END]
        tensors = [part for part in found if isinstance(part, Tensor)]
        if not {id(tensor) for tensor in known} <= {id(tensor) for tensor in tensors}:
            return None
        firsts = [next(iter(m._parameters.values()), None) for m in each]
        weights = [weight for weight in firsts if weight is not None]
        norms = [m for m in each if hasattr(m, 'eps')]
        parts = cls(places, found, tensors, weights, norms, ())
        return parts._replace(state=parts.present())

    def are_unchanged(self) -> bool:
        """Whether all parts are those that were found, of the same types and in the same places."""
        there = chain.from_iterable(map(dict.values, self.places))
        return all(map(is_, chain(there, (_END,)), self.found)) and self.present() == self.state

    def present(self) -> tuple:
        """State of the parts at present.

        A tensor that is given other data, of another type or layout, is at another address, unless
        it was given other data twice.
        """
        return (
            *map(Tensor.data_ptr, self.tensors),
            *[(weight.dtype, weight.stride()) for weight in self.weights],
            *[(norm.training, norm.eps, norm.__dict__.get('momentum')) for norm in self.norms],
        )
