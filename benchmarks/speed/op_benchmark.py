"""Speed and memory of the contextual convolution's formulations beside the plain convolution."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.text import FAILED, NOT_RUN, OK
from benchmarks.timing import Call, Times, peak_memory, time_in_turn

from .op_cases import PLAIN, OpInputs, OpShape, draw_inputs
from .op_check import check, exact_results

PASSES = ('forward', 'backward', 'forward and backward')
# Size of the sets of inputs that runs use in turn, so that no cache contains the next set.
CACHES_TO_FILL, CPU_CACHE, MAX_SETS = 4, 2**25, 16
COPY_BYTES = {'cpu': 2**27, 'cuda': 2**31}
CEILING_RUNS = 10
MATRIX_SIZE = {'cpu': 1024, 'cuda': 8192}


def measure_ceilings(dtype: torch.dtype, device: torch.device, seconds: float) -> dict[str, float]:
    """Measure what this device reaches in its best run, on random data.

    Args:
        dtype (torch.dtype): Type of the matrix product.
        device (torch.device): Device to measure.
        seconds (float): Duration of each measurement, in seconds.

    Returns:
        dict[str, float]: `copy_bytes_per_s`, bytes that a copy reads and writes;
        `matmul_flop_per_s` and `float32_flop_per_s`, rates of matrix products in the type and in
        float32.
    """
    source = torch.rand(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    size = MATRIX_SIZE[device.type]
    left, right = torch.randn(2, size, size, device=device)
    low_left, low_right = left.to(dtype), right.to(dtype)
    calls = {
        'copy': Call(lambda _: target.copy_(source)),
        'matmul': Call(lambda _: low_left @ low_right),
        'float32': Call(lambda _: left @ right),
    }
    times = time_in_turn(calls, device, seconds, CEILING_RUNS, queued=True)
    return dict(
        copy_bytes_per_s=2 * source.nbytes / times['copy'].best,
        matmul_flop_per_s=2 * size**3 / times['matmul'].best,
        float32_flop_per_s=2 * size**3 / times['float32'].best,
    )


def benchmark_shape(
    shape: OpShape,
    functions: dict[str, Callable[..., Tensor]],
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    seconds: float,
    ceilings: dict[str, float],
    modulated: bool = False,
    channels_last: bool = False,
) -> list[dict]:
    """Check every formulation on new inputs, then time those with correct results in turn.

    Args:
        shape (OpShape): Convolution to benchmark.
        functions (dict): Result of `formulations`, with the plain convolution.
        batch (int): Number of images, unless the shape fixes it.
        dtype (torch.dtype): Type of all tensors.
        device (torch.device): Device of the benchmark.
        seconds (float): Time to spend on each formulation's forward and backward, in seconds.
        ceilings (dict[str, float]): Result of `measure_ceilings`.
        modulated (bool): Whether there is a mask. Defaults to False.
        channels_last (bool): Whether x is in the memory format channels last. Defaults to False.

    Returns:
        list[dict]: A row for each formulation: its shape and name; `status`, which is `ok`,
        `FAILED` or `not run`, and the reason; relative errors; and, if `ok`, times and rates of
        each pass.
    """
    batch = shape.batch or batch

    def draw():
        return draw_inputs(shape, batch, dtype, device, modulated, channels_last)

    sets = [draw()]
    exact = {False: exact_results(shape, sets[0].plain()), True: exact_results(shape, sets[0])}
    rows, calls = [], {}
    for name, function in functions.items():
        contextual = name != PLAIN
        inputs = sets[0] if contextual else sets[0].plain()
        row = dict(shape=str(shape), batch=batch, formulation=name)
        row.update(_checked(function, shape, inputs, exact[contextual]), peak_bytes={})
        rows.append(row)
    del exact
    sets += [draw() for _ in range(_input_sets(sets[0], device) - 1)]
    for row in rows:
        if row['status'] != OK:
            continue
        name = row['formulation']
        given = sets if name != PLAIN else [inputs.plain() for inputs in sets]
        runs = _calls(functions[name], shape, given)
        try:
            row['peak_bytes'] = {
                n: peak_memory(lambda run=run: run.run(run.prepare(0)), device)
                for n, run in runs.items()
            }
        except torch.OutOfMemoryError:
            row.update(status=NOT_RUN, note=f'out of memory with {len(sets)} sets of inputs')
        else:
            calls |= {(name, n): run for n, run in runs.items()}
    times = time_in_turn(calls, device, seconds, queued=True)
    for row in rows:
        if row['status'] == OK:
            row['passes'] = _rates(row['formulation'], times, shape, sets[0], ceilings)
    return rows


def _checked(function, shape: OpShape, inputs: OpInputs, exact: dict[str, Tensor]) -> dict:
    """Check a formulation, and return its status, note and errors."""
    try:
        errors, wrong = check(function, shape, inputs, exact)
    except (NotImplementedError, torch.OutOfMemoryError) as error:
        return dict(status=NOT_RUN, note=_first_line(error), errors={})
    except Exception as error:
        # Whatever error a back end raises, the others are still measured.
        return dict(status=FAILED, note=_first_line(error), errors={})
    return dict(status=FAILED if wrong else OK, note=wrong, errors=errors)


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'


def _input_sets(inputs: OpInputs, device: torch.device) -> int:
    cache = CPU_CACHE
    if device.type == 'cuda':
        cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(CACHES_TO_FILL * cache // inputs.bytes()[0] + 2, MAX_SETS)


def _calls(function, shape: OpShape, sets: list[OpInputs]) -> dict[str, Call]:
    """Make the three passes of a formulation, each of which uses the next set of inputs."""
    leaves = [[t.detach().requires_grad_() for t in inputs.tensors.values()] for inputs in sets]
    names = list(sets[0].tensors)

    def forward(index):
        return function(**dict(zip(names, leaves[index % len(sets)])), **shape.geometry)

    def inference(index):
        with torch.no_grad():
            return forward(index)

    def backward(state):
        index, out = state
        at = index % len(sets)
        return torch.autograd.grad(out, leaves[at], sets[at].cotangent)

    runs = (
        Call(inference),
        Call(backward, lambda index: (index, forward(index))),
        Call(lambda index: backward((index, forward(index)))),
    )
    return dict(zip(PASSES, runs))


def _rates(
    name: str, times: dict[tuple[str, str], Times], shape: OpShape, inputs: OpInputs, ceilings
) -> dict[str, dict]:
    """Compute times, rates in bytes and operations, and ratios of each pass."""
    contextual = name != PLAIN
    bytes_moved = (inputs if contextual else inputs.plain()).bytes()
    flops = shape.flops(len(inputs.cotangent), contextual)
    # A depthwise kernel cannot use matrix units.
    best = ceilings['float32_flop_per_s' if shape.depthwise else 'matmul_flop_per_s']
    passes = {}
    for part, count, moved in zip(PASSES, (*flops, sum(flops)), (*bytes_moved, sum(bytes_moved))):
        spent, plain = times[name, part], times.get((PLAIN, part))
        passes[part] = dict(
            **spent.in_seconds(),
            ratio_to_plain=spent.median / plain.median if plain else None,
            bytes=moved,
            bytes_per_s=moved / spent.median,
            share_of_copy=moved / spent.median / ceilings['copy_bytes_per_s'],
            flop=count,
            flop_per_s=count / spent.median,
            share_of_matmul=count / spent.median / best,
        )
    return passes
