"""Forward and backward passes of a module replayed from CUDA graphs.

A replay takes the host one launch, whatever the number of kernels; run one by one, small kernels
take the host longer to launch than the GPU to run.
"""

import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

SETTLING_RUNS = 3
_HOOKS = [*map(itemgetter, ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks'))]
_TRAINING, _REQUIRES_GRAD = itemgetter('training'), attrgetter('requires_grad')


class GraphedForward:
    """Replacement of a module's `forward` that replays CUDA graphs where that is right.

    A graph is captured for a state of the module and its input (sizes, types, training or not,
    addresses of the parameters) at the second call in that state. Other calls run as before: on a
    CPU; while a compiler, a counter, a hook of a submodule or `record_context` looks on; while
    parameters hold gradients already (accumulation); and a second training pass before the first
    one's backward pass, whose activations a replay would overwrite. Data that the module keeps on
    the host, such as a schedule in an attribute, is fixed in a graph, except for the number of
    classes that `Contextualizing` keeps.

    A graph holds the memory of its activations for as long as it exists.

    Args:
        module (nn.Module): Called with one tensor; its submodules stay the same.
        inference (bool): Whether passes without gradients are replayed too. Defaults to True.
        max_graphs (int): Largest number of graphs. Defaults to 4.
    """

    def __init__(self, module: nn.Module, inference: bool = True, max_graphs: int = 4):
        # Only who uses graphs waits for these imports.
        from mmctx.models.layers import Contextualizing

        self.module, self.original_forward = module, module.forward
        self.inference, self.max_graphs = inference, max_graphs
        self.modules = list(module.modules())
        # At each call all parts are looked at, by loops in C, as a network has hundreds.
        self.attributes = [vars(m) for m in self.modules]
        self.parameters = [m._parameters for m in self.modules if m._parameters]
        self.buffers = [m._buffers for m in self.modules if m._buffers]
        self.cascades = [m for m in self.modules if isinstance(m, Contextualizing)]
        self.graphs: dict[Any, Callable[[Tensor], Any]] = {}
        self.seen: Counter = Counter()
        self.backward_pending: Callable[[], object] = lambda: None

    def install(self) -> 'GraphedForward':
        """Put this in the place of the module's `forward`."""
        self.module.forward = self  # type: ignore[assignment]
        return self

    def remove(self) -> None:
        """Give the module its own `forward` back, and free the graphs."""
        if self.module.__dict__.get('forward') is self:
            del self.module.forward
        self.graphs.clear()

    def __call__(self, *args, **kwargs):
        """Result of the module, in memory of its own."""
        if len(args) != 1 or kwargs or not self._can_replay(args[0]):
            return self.original_forward(*args, **kwargs)
        (x,) = args
        parameters = _tensors_in(self.parameters)
        if not self._gradients_allow(x, parameters):
            return self.original_forward(x)
        state = self._state(x, parameters)
        run = self.graphs.get(state)
        if run is None:
            if len(self.graphs) >= self.max_graphs:
                return self.original_forward(x)
            # Sizes that come once, such as those of an epoch's last batch, are not worth a graph.
            self.seen[hash(state)] += 1
            if self.seen[hash(state)] < 2:
                return self.original_forward(x)
            with _kept_as_it_was(self.module, x.device), _uncached_autocast():
                run = self._capture_training(x) if torch.is_grad_enabled() else self._capture(x)
            self.graphs[state] = run
        return run(x)

    def __reduce__(self):
        # A copy of the module has parameters of its own, and so runs without these graphs.
        return _own_forward, (self.module,)

    def _can_replay(self, x: object) -> bool:
        from mmctx.models.layers.reporting import current_listener
        from mmctx.ops.triton.operator import needs_operators

        if not isinstance(x, Tensor) or not x.is_cuda or needs_operators(x):
            return False
        if torch.cuda.is_current_stream_capturing() or torch.is_anomaly_enabled():
            return False
        if current_listener() is not None:
            return False
        if any(any(map(hooks, self.attributes[1:])) for hooks in _HOOKS):
            return False
        return torch.is_grad_enabled() or self.inference

    def _gradients_allow(self, x: Tensor, parameters: list[Tensor]) -> bool:
        """Whether a replay would give, and not overwrite, the gradients that are asked for."""
        if not torch.is_grad_enabled():
            return True
        if not (x.requires_grad or any(p.requires_grad for p in parameters)):
            return False
        return self.backward_pending() is None and all(p.grad is None for p in parameters)

    def _state(self, x: Tensor, parameters: list[Tensor]):
        """All that a graph depends on, but for the submodules and PyTorch's own switches (TF32)."""
        from mmctx.ops.contextual_conv import BACKEND_VARIABLE

        grad = torch.is_grad_enabled()
        return (
            x.shape,
            x.dtype,
            x.device,
            x.stride(),
            x.requires_grad,
            grad,
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled('cuda'),
            torch.get_autocast_dtype('cuda'),
            torch.are_deterministic_algorithms_enabled(),
            os.environ.get(BACKEND_VARIABLE),
            tuple(map(_TRAINING, self.attributes)),
            tuple(map(Tensor.data_ptr, parameters)),
            tuple(map(_REQUIRES_GRAD, parameters)) if grad else None,
            tuple(map(Tensor.data_ptr, _tensors_in(self.buffers))),
            tuple([(c.selection, c.considered) for c in self.cascades]),
        )

    def _capture(self, x: Tensor) -> Callable[[Tensor], Any]:
        """Capture a pass without gradients."""
        static_input, graph = x.clone(), torch.cuda.CUDAGraph()
        self._settle(lambda: self.original_forward(static_input))
        with torch.cuda.graph(graph):
            out = self.original_forward(static_input)

        def run(x: Tensor):
            static_input.copy_(x)
            graph.replay()
            return tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, out)

        return run

    def _capture_training(self, x: Tensor) -> Callable[[Tensor], Any]:
        """Capture a pass with its backward pass."""
        static_input = x.detach().clone().requires_grad_(x.requires_grad)
        body = _Body(self.module, self.original_forward)
        names, parameters = zip(*body.named_parameters())
        # Leaves of their own, on the memory of the parameters. Autograd sums the gradients of a
        # leaf on the stream that first used it, which for a parameter is not the capture's; what is
        # allocated there is freed under the graph.
        leaves = [p.detach().requires_grad_(p.requires_grad) for p in parameters]

        def call(x: Tensor, *leaves: Tensor):
            return functional_call(body, dict(zip(names, leaves)), (x,))

        def settle():
            outputs = [
                t for t in tree_leaves(self.original_forward(static_input)) if t.requires_grad
            ]
            inputs = [p for p in parameters if p.requires_grad]
            cotangents = [torch.zeros_like(t) for t in outputs]
            torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)

        self._settle(settle)
        # Its own way to settle would leave leaves behind that belong to another stream.
        graphed: Any = torch.cuda.make_graphed_callables(
            call, (static_input, *leaves), num_warmup_iters=0, allow_unused_input=True
        )

        def run(x: Tensor):
            out = graphed(x, *parameters)
            tensors, several = (out, True) if isinstance(out, (tuple, list)) else ((out,), False)
            token = _BackwardPending()
            marked = _Mark.apply(token, *tensors)
            self.backward_pending = weakref.ref(token)
            return type(out)(marked) if several else marked[0]

        return run

    def _settle(self, run: Callable[[], object]) -> None:
        """Let kernels be compiled and chosen before a capture, on a stream beside the current."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(SETTLING_RUNS):
                run()
        torch.cuda.synchronize()


def _tensors_in(places: list[dict]) -> list[Tensor]:
    return [t for t in chain.from_iterable(map(dict.values, places)) if t is not None]


class _Body(nn.Module):
    """A module with its own `forward`."""

    def __init__(self, module: nn.Module, forward: Callable):
        super().__init__()
        self.module, self.run = module, forward

    def forward(self, x: Tensor):
        return self.run(x)


class _BackwardPending:
    """Lives as long as a backward pass may still come."""

    __slots__ = ('__weakref__',)


class _Mark(torch.autograd.Function):
    """Copies that drop a token when their backward pass begins, or when they are freed.

    A replay writes its results to the same memory as the one before.
    """

    @staticmethod
    def forward(ctx, token, *tensors):
        ctx.token = token
        return tuple(t.clone() for t in tensors)

    @staticmethod
    def backward(ctx, *grads):
        ctx.token = None
        return None, *grads


@contextmanager
def _kept_as_it_was(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Context after which the module's buffers and the random numbers are as before it."""
    buffers = [(b, b.clone()) for b in module.buffers()]
    numbers = torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.cuda.set_rng_state(numbers, device)


def _uncached_autocast():
    """Autocast as it is, but without remembered weights, which a replay would not renew."""
    enabled, dtype = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    return torch.autocast('cuda', dtype, enabled, cache_enabled=False)


def _own_forward(module: nn.Module) -> Callable:
    return type(module).forward.__get__(module)
