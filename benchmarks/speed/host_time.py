"""Host time of the Triton back end: all of a call but the kernels.

Launches are replaced by functions that do nothing, so no GPU is needed. The tensors are tiny and on
the CPU, whose own operators (products of a few numbers, allocations) are part of the times.
"""

from collections.abc import Callable

import torch
import triton
from torch import Tensor, nn
from triton.runtime.jit import JITFunction

from benchmarks.timing import Call, time_in_turn
from mmctx.models.layers import ContextualConv2d, using_prior
from mmctx.ops import contextual_conv2d
from mmctx.ops.contextual_conv import BACKEND_VARIABLE
from mmctx.ops.triton import import_kernels

CHANNELS, PRIOR, SIDE = 16, 8, 4
LAYERS = {
    '7×7 depthwise': dict(
        kernel_size=7,
        padding=3,
        groups=CHANNELS,
        depthwise_predictor=True,
        weight_offset_hidden=4,
    ),
    '3×3 dense': dict(
        kernel_size=3,
        padding=1,
        bias=False,
        sampling_offset_hidden=4,
        weight_offset_hidden=4,
        norm='BN',
    ),
}
PLAIN = 'nn.Conv2d'
MIN_RUNS = 10


class _NoKernel:
    """Stand-in for a compiled kernel that does nothing when it is run."""

    function, packed_metadata = 0, ()

    @staticmethod
    def run(*_):
        pass


def disable_launches(environment: dict) -> None:
    """Make every later launch in this process do nothing.

    Args:
        environment (dict): Environment of the process, in which the back end is set to Triton.
    """
    # Triton's interpreter would run kernels that are defined later.
    import_kernels()
    JITFunction.run = lambda kernel, *args, grid, warmup, **options: _NoKernel
    triton.knobs.runtime.interpret = True
    environment[BACKEND_VARIABLE] = 'triton'


def measure(seconds: float) -> list[dict]:
    """Time each part of a contextual convolution, in turn, after `disable_launches`.

    Args:
        seconds (float): Time to spend on each part of a layer, in seconds.

    Returns:
        list[dict]: For each layer and part its `layer`, `part`, `microseconds` (the median) and
        `ratio` to the forward pass of `nn.Conv2d`, or for a backward pass to its backward pass.
    """
    torch.set_num_threads(1)
    rows = []
    for name, arguments in LAYERS.items():
        found = time_in_turn(_parts(arguments), torch.device('cpu'), seconds, MIN_RUNS)
        times = {part: spent.median for part, spent in found.items()}
        for part, spent in times.items():
            plain = f'{PLAIN}, backward' if part.endswith('backward') else f'{PLAIN}, forward'
            rows.append(
                dict(
                    layer=name,
                    part=part,
                    microseconds=spent * 1e6,
                    ratio=spent / times[plain],
                )
            )
    return rows


def _parts(arguments: dict) -> dict[str, Call]:
    conv = ContextualConv2d(CHANNELS, CHANNELS, prior_channels=PRIOR, **arguments)
    conv = conv.to(memory_format=torch.channels_last)
    kept = ('kernel_size', 'padding', 'groups', 'bias')
    plain = nn.Conv2d(CHANNELS, CHANNELS, **{k: arguments[k] for k in kept if k in arguments})
    x = torch.randn(2, CHANNELS, SIDE, SIDE).to(memory_format=torch.channels_last)
    prior = torch.randn(2, PRIOR)
    with torch.no_grad():
        sampling_offset, _, weight_offset = conv.predict_offsets(x, prior)
    leaves = [t.detach().requires_grad_() for t in (x, sampling_offset, weight_offset)]

    def op(x, sampling_offset, weight_offset):
        return contextual_conv2d(
            x,
            conv.weight,
            conv.bias,
            sampling_offset=sampling_offset,
            weight_offset=weight_offset,
            padding=conv.padding,
        )

    def whole(x):
        with using_prior(prior):
            return conv(x)

    calls = {PLAIN: (plain, leaves[:1]), 'op': (op, leaves), 'whole layer': (whole, leaves[:1])}
    parts = {}
    for name, (call, inputs) in calls.items():
        parts |= _passes(name, conv, call, inputs)
    return parts


def _passes(name: str, conv: nn.Module, call: Callable, inputs: list[Tensor]) -> dict[str, Call]:
    cotangent = torch.ones_like(call(*inputs))

    def inference(_):
        with torch.no_grad():
            return call(*inputs)

    def trained(_):
        conv.train()
        return call(*inputs)

    return {
        f'{name}, forward': Call(inference, lambda _: conv.eval()),
        f'{name}, forward, with gradients': Call(lambda _: call(*inputs), lambda _: conv.train()),
        f'{name}, backward': Call(lambda out: torch.autograd.grad(out, inputs, cotangent), trained),
    }


def cells(rows: list[dict]) -> list[list[str]]:
    """Make the cells of a table of the result of `measure`, headings first."""
    head = ['layer', 'part', 'µs', f'× {PLAIN}']
    return [head] + [
        [row['layer'], row['part'], f'{row["microseconds"]:.0f}', f'{row["ratio"]:.1f}']
        for row in rows
    ]
