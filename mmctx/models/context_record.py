"""A record of what a contextual network did with the images that it was shown."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from mmctx.errors import UserError
from mmctx.ops.sampling import tap_positions

from .layers import ContextualConv2d, Contextualizing, StageContext
from .layers.contextual_conv import ConvolutionContext
from .layers.reporting import exchange_listener
from .losses import StagewiseCrossEntropy


class ContextRecord:
    """What the contextual layers of a network did in its first call.

    Attributes:
        stages (dict[int, StageContext]): Conclusion of each stage that classifies, by its number,
            which counts from 1.
        convolutions (dict[str, ConvolutionContext]): What each contextual convolution that ran
            did, by its name in the network, in the order in which they ran.
        target (Tensor, optional): What the stage-wise loss got: labels, (B,), or scores of all
            classes, (B, N₁). None where there was no such loss.
    """

    def __init__(self, network: nn.Module):
        self.stages: dict[int, StageContext] = {}
        self.convolutions: dict[str, ConvolutionContext] = {}
        self.target: Tensor | None = None
        self._names = {m: n for n, m in network.named_modules() if isinstance(m, ContextualConv2d)}
        # How many first stages of the network that holds the layers do not classify.
        self._skipped = {
            m.contextualizing: getattr(m, 'skipped', 0)
            for m in network.modules()
            if isinstance(getattr(m, 'contextualizing', None), Contextualizing)
        }
        for module in network.modules():
            if isinstance(module, Contextualizing):
                self._skipped.setdefault(module, 0)
        self._losses = {m for m in network.modules() if isinstance(m, StagewiseCrossEntropy)}

    def listen(self, layer: nn.Module, report) -> None:
        """Keep the first report of each layer of the network."""
        # Gradient checkpointing runs layers again.
        if layer in self._names:
            self.convolutions.setdefault(self._names[layer], report)
        elif layer in self._skipped:
            stage_index, context = report
            self.stages.setdefault(stage_index + 1 + self._skipped[layer], context)
        elif layer in self._losses and self.target is None:
            self.target = report

    def labels(self) -> Tensor | None:
        """Main label of each image, (B, 1), where the loss got any."""
        if self.target is None:
            return None
        # Mixup and CutMix have several labels, of which the main one counts.
        return self.target[:, None] if self.target.ndim == 1 else self.target.argmax(1, True)


@contextmanager
def record_context(network: nn.Module) -> Iterator[ContextRecord]:
    """Record what a contextual network does with the images that this thread shows it.

    Layers report by themselves, so nothing is hooked and other threads are not recorded. Tensors
    are those of the run, with their gradients. Contexts may lie within one another: the innermost
    records. Inside, what `torch.compile` has compiled runs uncompiled, as a compiled network has
    left out what nobody listened to.

    Args:
        network (nn.Module): Any network with contextual layers, unwrapped.

    Yields:
        ContextRecord: Filled by the first call of the network inside; empty for a vanilla network.
    """
    record = ContextRecord(network)
    before = exchange_listener(record.listen)
    try:
        with torch.compiler.set_stance('force_eager'):
            yield record
    finally:
        exchange_listener(before)


def mean_shift(sampling_offset: Tensor) -> Tensor:
    """Mean absolute Δp over images, positions, taps and both axes, in pixels of the layer's input.

    Args:
        sampling_offset (Tensor): Δp, (B, 2K, H_out, W_out).

    Returns:
        Tensor: A scalar.
    """
    return sampling_offset.abs().mean()


def relative_weight_offset(weight_offset: Tensor, weight: Tensor) -> Tensor:
    """Size of Δw relative to the static kernel w: its quadratic mean over the mean size of w.

    Both are lengths of the kernel of one output channel, whose Δw all output channels share where
    the convolution is dense.

    Args:
        weight_offset (Tensor): Δw, (B, C, 1, kh, kw) depthwise or (B, 1, C_in, kh, kw) dense.
        weight (Tensor): w, (C, 1, kh, kw) or (C_out, C_in, kh, kw).

    Returns:
        Tensor: A scalar; 0.1 where Δw is a tenth of w.
    """
    lengths = weight_offset.detach().float().flatten(2).norm(dim=2)  # [B, C or 1]
    static = weight.detach().float().flatten(1).norm(dim=1).mean()
    return lengths.square().mean().sqrt() / static


def recalls(record: ContextRecord) -> dict[int, Tensor]:
    """How often the true class stays considered after each stage that drops classes.

    Args:
        record (ContextRecord): Of a call that computed the loss.

    Returns:
        dict[int, Tensor]: Share of the images, from 0 to 1, by the number of the stage; empty
        where the labels are not known.
    """
    label = record.labels()
    if label is None:
        return {}
    return {
        stage: context.kept.gather(1, label).float().mean()
        for stage, context in record.stages.items()
        if context.kept is not None
    }


def contextual_convolutions(network: nn.Module) -> dict[str, ContextualConv2d]:
    """The contextual convolutions of a network by their names, in the order of its modules."""
    return {n: m for n, m in network.named_modules() if isinstance(m, ContextualConv2d)}


def choose_convolution(
    network: nn.Module, stage: int | None = None, block: int = 0, layer: str | None = None
) -> str:
    """Name of one contextual convolution of a network.

    Args:
        network (nn.Module): A contextual backbone, or any network with contextual convolutions.
        stage (int, optional): Stage that it is in, 1 to 4. Defaults to None, the last stage.
        block (int): Number of its block in the stage, from 0. Defaults to 0.
        layer (str, optional): Its name, instead of stage and block. Defaults to None.

    Raises:
        UserError: There is no such contextual convolution; the message lists those that exist.
    """
    names = list(contextual_convolutions(network))
    if not names:
        raise UserError(f'this {type(network).__name__} has no contextual convolution')
    if layer is None:
        blocks = getattr(network, 'blocks_of', None)
        if blocks is None:
            if stage is not None:
                raise UserError(f'name the layer instead of a stage: {", ".join(names)}')
            return names[-1]
        inside = list(blocks(4 if stage is None else stage))
        chosen = list(inside[block].modules()) if 0 <= block < len(inside) else []
        layer = next((n for n in names if network.get_submodule(n) in chosen), None)
        if layer is None:
            raise UserError(
                f'block {block} of stage {stage or 4} has no contextual convolution; these have: '
                f'{", ".join(names)}'
            )
    if layer not in names:
        raise UserError(f'{layer} is no contextual convolution; these are: {", ".join(names)}')
    return layer


def sampling_positions(
    conv: ContextualConv2d, sampling_offset: Tensor | None, row: int, column: int
) -> tuple[Tensor, Tensor]:
    """Where a contextual convolution samples its input for one position of its output.

    Args:
        conv (ContextualConv2d): The convolution.
        sampling_offset (Tensor, optional): Δp of one image, (2K, H_out, W_out).
        row, column (int): The position, in pixels of the output.

    Returns:
        tuple[Tensor, Tensor]: The regular grid p + g(k) and the points p + g(k) + Δp(k), (K, 2)
        each, as (y, x) in pixels of the input, whose first pixel has its centre at (0, 0).
    """
    layer: Any = conv
    # Those of the first output pixel, in an output that has no other.
    still = torch.zeros(1, 2 * math.prod(layer.kernel_size), 1, 1)
    y, x = tap_positions(
        layer.kernel_size, layer.kernel_size, layer.stride, layer.padding, layer.dilation, still,
        still.device, still.dtype,
    )  # fmt: skip
    from_first = torch.tensor([row, column]) * torch.tensor(conv.stride)
    regular = torch.stack([y, x], -1).view(-1, 2) + from_first  # [K, 2]
    if sampling_offset is None:
        return regular, regular
    shift = sampling_offset[:, row, column].detach().float().cpu().unflatten(0, (-1, 2))
    return regular, regular + shift
