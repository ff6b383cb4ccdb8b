"""The backward pass in Triton kernels; it computes only the gradients that are needed."""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from .forward import Preparation, Tables, weight_table
from .input_gradient import gather_kernel
from .input_gradient_product import gather_product_kernel
from .launching import Launch, current_stream
from .operator import ARGUMENTS
from .problem import Problem, channels_last, multiplies_halves
from .sample_lists import list_kernel, order_kernel
from .sampling_gradient import kernel_gradient_kernel, sampling_gradient_kernel
from .settings import (
    GATHERED_AT_ONCE,
    KERNEL_CHANNELS,
    KERNEL_ROWS,
    MULTIPLIED_AT_ONCE,
    ORDERED_AT_ONCE,
    REMEMBERED,
    SAMPLE_PIXELS,
    SMALLEST_SIDE,
    Settings,
)

Needed = tuple[bool, ...]


def tap_rows(problem: Problem) -> int:
    """Number of taps as `tl.dot` takes them."""
    return max(triton.next_power_of_2(problem.taps), SMALLEST_SIDE)


def gathers_by_products(problem: Problem) -> bool:
    """Whether x's gradient is gathered by products of matrices, or by sums for each pixel.

    As counted in code compiled for sm_90, products take a third to a half of the instructions, and
    45 to 70 % of the bytes from L2. In float32, tensor cores would need three products of TF32.
    Without tensor cores, products take more instructions than sums. Dense convolutions with Δw also
    keep a sum for each tap in registers, of which there are too few for more than 16 taps.
    """
    sums_by_tap = not problem.depthwise and problem.weight_offset is not None
    return (
        problem.type.itemsize == 2
        and multiplies_halves(problem.device)
        and not (sums_by_tap and tap_rows(problem) > SMALLEST_SIDE)
    )


class InputGradient:
    """Gradient of x, from lists of the samples that read each pixel.

    Args:
        problem (Problem): Shapes, types and options of the convolution.
        settings (Settings): Tiles of the kernels.
        deterministic (bool): Whether to sort the lists, so that sums are the same in every run.
        pooled_image (int): Distance in memory between the images of `of_pooled`. Defaults to 0.
    """

    def __init__(
        self, problem: Problem, settings: Settings, deterministic: bool, pooled_image: int = 0
    ):
        batch, channels, taps = problem.batch, problem.channels, problem.taps
        pixels = problem.x_pixels
        self.slots = batch, pixels
        entries = taps * problem.out_pixels
        self.sources = batch, entries
        self.weights = weight_table(problem, batch * entries)
        # x's memory, channels last
        self.shape = problem.x[0]
        self.strides = (pixels * channels, 1, self.shape[3] * channels, channels)
        values = dict(
            problem.values(),
            entries=entries,
            pooled_image=pooled_image,
            SLOT=triton.next_power_of_2(taps),
            BLOCK=ORDERED_AT_ONCE,
            AT_ONCE=GATHERED_AT_ONCE,
        )
        chunks = triton.cdiv(problem.out_pixels, SAMPLE_PIXELS)
        tap_groups, group_taps = problem.split(taps, batch * chunks)
        listing = dict(
            values, chunks=chunks, tap_groups=tap_groups, group_taps=group_taps,
            PIXELS=SAMPLE_PIXELS,
        )  # fmt: skip
        programs = batch * chunks * tap_groups
        self.count = Launch(list_kernel, programs, listing)
        self.fill = Launch(list_kernel, programs, listing)
        self.order = None
        if deterministic:
            self.order = Launch(order_kernel, batch * pixels, values, warps=1)
        kernel, name = gather_kernel, 'gather'
        if gathers_by_products(problem):
            kernel, name = gather_product_kernel, 'gather_product'
        tile = settings.tile(name, problem.type, channels)
        blocks, chunks = triton.cdiv(channels, tile.channels), triton.cdiv(pixels, tile.pixels)
        # Of an image's gradient, of the output or of the columns.
        values_of_grad = channels * (problem.out_pixels if problem.depthwise else entries)
        gathering = dict(
            values, **problem.tiled(tile), blocks=blocks, chunks=chunks, ENTRIES=MULTIPLIED_AT_ONCE,
            TAP_ROWS=tap_rows(problem), INDEX=tl.int32 if values_of_grad < 2**31 else tl.int64,
        )  # fmt: skip
        programs = batch * blocks * chunks
        self.gather = Launch(kernel, programs, gathering, tile.warps, tile.registers)

    def __call__(
        self, stream: int, x, sampling_offset, mask, kernels, grad, grad_sum, of_pooled=None
    ) -> Tensor:
        """Gradient of x, channels last in memory.

        `of_pooled` is the gradient of x's mean over its pixels, (B, C), if there is another use of
        x than the convolution.
        """
        device = x.device
        counts = torch.zeros(self.slots, dtype=torch.int32, device=device)
        self.count(stream, counts, None, None, sampling_offset, mask)
        slots = counts.cumsum(1, dtype=torch.int32)
        sources = counts.new_empty(self.sources)
        shape, dtype = self.weights
        weights = x.new_empty(shape, dtype=dtype)
        self.fill(stream, slots, sources, weights, sampling_offset, mask)
        if self.order is not None:
            listed = sources, weights
            sources, weights = (torch.empty_like(t) for t in listed)
            self.order(stream, sources, weights, *listed, slots, counts)
        grad_x = torch.empty_strided(self.shape, self.strides, dtype=x.dtype, device=device)
        self.gather(
            stream, grad_x, grad, grad_sum, kernels, sources, weights, slots, counts, of_pooled
        )
        return grad_x


class SamplingGradient:
    """Gradients of Δp, the mask, Δw and w, each only if needed.

    Args:
        problem (Problem): Shapes, types and options of the convolution.
        settings (Settings): Tiles of the kernels.
        needed (dict[str, bool]): Whether each argument needs a gradient, by name.
        totals_delta (bool): Whether to return the sum of Δw's gradients over the images as well.
    """

    def __init__(
        self, problem: Problem, settings: Settings, needed: dict[str, bool], totals_delta: bool
    ):
        batch, channels, taps = problem.batch, problem.channels, problem.taps
        tile = settings.tile('sampling_gradient', problem.type, channels)
        blocks = triton.cdiv(channels, tile.channels)
        chunks, chunk_tiles = problem.split(
            triton.cdiv(problem.out_pixels, tile.pixels), batch * blocks
        )
        tap_groups, group_taps = problem.split(taps, batch * blocks * chunks)
        self.needed, self.problem = needed, problem
        self.sampling_offset = (blocks, batch, 2 * taps, *problem.out_size)
        self.mask = (blocks, batch, taps, *problem.out_size)
        self.kernels = (chunks, batch, taps, channels)
        self.columns = (batch * problem.out_pixels, taps * channels)
        self.needs_kernels = needed['weight_offset'] or (needed['weight'] and problem.depthwise)
        self.needs_columns = needed['weight'] and not problem.depthwise
        values = dict(
            problem.values(), **problem.tiled(tile), blocks=blocks, chunks=chunks,
            chunk_tiles=chunk_tiles, tap_groups=tap_groups, group_taps=group_taps,
        )  # fmt: skip
        programs = batch * blocks * chunks * tap_groups
        self.launch = Launch(sampling_gradient_kernel, programs, values, tile.warps, tile.registers)
        blocks = triton.cdiv(channels, KERNEL_CHANNELS)
        entries = batch * blocks if needed['weight_offset'] else 0
        sums_images = totals_delta or (needed['weight'] and problem.depthwise)
        weight_programs = taps * blocks if sums_images else 0
        self.delta_total = (channels, taps) if totals_delta else None
        values.update(
            blocks=blocks, entries=entries, KERNEL_CHANNELS=KERNEL_CHANNELS, ROWS=KERNEL_ROWS
        )
        self.sum = Launch(kernel_gradient_kernel, entries + weight_programs, values)

    def __call__(
        self, stream: int, x, sampling_offset, mask, kernels, grad, grad_sum, rows: Tensor
    ) -> dict[str, Tensor]:
        """Gradients by argument; `rows` are the output's gradient, [B·P, C_out].

        Those of Δp and the mask are still parts, which `sum_blocks` adds up. `delta_total` is the
        sum of Δw's over the images, (C, K), if it was asked for.
        """
        needed, problem = self.needed, self.problem

        def empty(shape, wanted=True, dtype=problem.compute_type):
            return x.new_empty(shape, dtype=dtype) if wanted else None

        grad_sampling_offset = empty(self.sampling_offset, needed['sampling_offset'])
        grad_mask = empty(self.mask, needed['mask'])
        grad_kernels = empty(self.kernels, self.needs_kernels)
        columns = empty(self.columns, self.needs_columns, x.dtype)
        self.launch(
            stream, grad_sampling_offset, grad_mask, grad_kernels, columns, grad, grad_sum, x,
            kernels, sampling_offset, mask,
        )  # fmt: skip
        grads = {}
        if needed['sampling_offset']:
            grads['sampling_offset'] = grad_sampling_offset
        if needed['mask']:
            grads['mask'] = grad_mask
        if self.needs_kernels:
            grad_weight_offset = grad_weight = None
            if needed['weight_offset']:
                shape, dtype = problem.weight_offset
                grad_weight_offset = grads['weight_offset'] = empty(shape, dtype=dtype)
            if needed['weight'] and problem.depthwise:
                shape, dtype = problem.weight[:2]
                grad_weight = grads['weight'] = empty(shape, dtype=dtype)
            if self.delta_total is not None:
                dtype = problem.weight_offset[1]
                grads['delta_total'] = empty(self.delta_total, dtype=dtype)
            self.sum(
                stream, grad_weight_offset, grad_weight, grads.get('delta_total'), grad_kernels
            )
        if self.needs_columns:
            _, channels, *kernel = problem.weight[0]
            grad_matrix = rows.t() @ columns  # [C_out, K·C_in]
            # Channels last, as the weight of a network that trains fastest.
            grads['weight'] = grad_matrix.view(-1, *kernel, channels).permute(0, 3, 1, 2)
        return grads


def sum_blocks(parts: Tensor) -> Tensor:
    """Sum of the parts of a gradient that the channel blocks have computed."""
    return parts[0] if len(parts) == 1 else parts.sum(0)


class Backward:
    """All needed gradients of a convolution; see `InputGradient` and `SamplingGradient`."""

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        needed: Needed,
        deterministic: bool,
        pooled_image: int = 0,
        totals_delta: bool = False,
    ):
        needed = dict(zip(ARGUMENTS, needed))
        self.problem, self.needed = problem, needed
        needs_sampling = any(
            needed[n] for n in ('weight', 'sampling_offset', 'weight_offset', 'mask')
        )
        self.sampling = None
        if needs_sampling:
            self.sampling = SamplingGradient(problem, settings, needed, totals_delta)
        self.input = None
        if needed['x']:
            self.input = InputGradient(problem, settings, deterministic, pooled_image)
        self.prepare = Preparation(problem, samples=False)

    def __call__(
        self,
        stream: int,
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        sampling_offset: Tensor | None,
        weight_offset: Tensor | None,
        mask: Tensor | None,
        tables: Tables | None,
    ) -> dict[str, Tensor]:
        """Gradients by argument."""
        grads, grad, grad_sum, kernels = self.of_kernels(
            stream, grad, x, weight, sampling_offset, weight_offset, mask, tables
        )
        for name in ('sampling_offset', 'mask'):
            if self.needed[name]:
                grads[name] = sum_blocks(grads[name])
        if self.input is not None:
            grads['x'] = self.input(stream, x, sampling_offset, mask, kernels, grad, grad_sum)
        return grads

    def of_kernels(
        self, stream: int, grad, x, weight, sampling_offset, weight_offset, mask, tables
    ) -> tuple[dict[str, Tensor], Tensor, Tensor | None, Tensor | None]:
        """All gradients but x's, as `SamplingGradient` returns them, and what `self.input` takes.

        That is the gradient of the output, or of the columns if the convolution is dense, its sum
        over the output's channels or None, and the kernels.
        """
        problem = self.problem
        # [B·P, C_out]
        rows = grad.permute(0, 2, 3, 1).view(-1, problem.out_channels)
        grads: dict[str, Tensor] = {}
        grad_sum = kernels = None
        if self.needed['bias']:
            grads['bias'] = rows.sum(0, dtype=problem.compute_type)
        if self.sampling is None and self.input is None:
            return grads, grad, grad_sum, kernels
        if tables is None:
            tables = tuple(self.prepare(stream, x, weight, None, weight_offset, None)[2:])
        kernels, matrix = tables
        if matrix is not None:
            grad = rows @ matrix[:, : problem.taps * problem.channels]  # [B·P, K·C_in]
            grad_sum = rows.sum(-1, dtype=problem.compute_type)
        if self.sampling is not None:
            grads.update(
                self.sampling(stream, x, sampling_offset, mask, kernels, grad, grad_sum, rows)
            )
        return grads, grad, grad_sum, kernels


@lru_cache(REMEMBERED)
def backward_of(
    problem: Problem, settings: Settings, needed: Needed, deterministic: bool
) -> Backward:
    """Backward pass of a problem for the needed gradients; made once and cached."""
    return Backward(problem, settings, needed, deterministic)


def backward(
    problem: Problem,
    settings: Settings,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sampling_offset: Tensor | None,
    weight_offset: Tensor | None,
    mask: Tensor | None,
    needed: Needed,
    tables: Tables | None = None,
) -> dict[str, Tensor]:
    """Gradients of the needed arguments by name, in compute or argument types.

    Args:
        problem (Problem): Shapes, types and options of the convolution.
        settings (Settings): Tiles of the kernels.
        grad (Tensor): Gradient of the output, (B, C_out, H_out, W_out).
        x, weight, bias, sampling_offset, weight_offset, mask (Tensor): Arguments of the forward
            pass.
        needed (tuple[bool, ...]): Whether each of `ARGUMENTS` needs a gradient.
        tables (tuple, optional): What the forward pass returned beside its output. Defaults to
            None, made again.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    run = backward_of(problem, settings, needed, deterministic)
    return run(
        current_stream(x.device), channels_last(grad), channels_last(x), weight, sampling_offset,
        weight_offset, mask, tables,
    )  # fmt: skip
