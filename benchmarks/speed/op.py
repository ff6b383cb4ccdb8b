"""Time the contextual convolution: its back ends, the released formulation, a plain convolution.

A formulation whose output or gradients differ from the float64 reference is not timed, and the exit
status is then 1. With --host, the host time of the Triton back end is compared with that of
`nn.Conv2d`.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.text import FAILED
from benchmarks.timing import check_timing, comparable_convolutions, use_device

from . import op_benchmark, op_cases, op_table

DTYPES = ('float32', 'float16', 'bfloat16')
BATCH_SIZES = {'cpu': 4, 'cuda': 128}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--shapes',
        nargs='+',
        metavar='SHAPE',
        help='dw7:192x28x28 is a depthwise 7×7 kernel on C×H×W, dense3:128x56x56:s2 a dense 3×3 '
        'one with stride 2; :b2 fixes the batch; by default those of ConvNeXt-T and ResNet50 at '
        "224×224, and a map of COCO's",
    )
    parser.add_argument('--backends', nargs='+', help='back ends and `released` (all)')
    parser.add_argument(
        '--batch-size', type=int, help='images at a time (4 on a CPU, 128 on a GPU)'
    )
    parser.add_argument(
        '--dtype', choices=DTYPES, default='float32', help='type of all tensors (float32)'
    )
    parser.add_argument('--modulated', action='store_true', help='with a mask, as DCNv2')
    parser.add_argument('--channels-last', action='store_true', help='memory format of x')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (the GPU where there is one)')
    parser.add_argument('--threads', type=int, help='threads of the CPU')
    parser.add_argument(
        '--seconds',
        type=float,
        default=1.0,
        help='seconds to time each pass for, 3 runs at least (1)',
    )
    parser.add_argument(
        '--host',
        action='store_true',
        help="time the Triton back end's work on the host instead, with launching replaced by "
        'nothing; needs no GPU',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the table')
    return parser.parse_args()


def main():
    args = parse_args()
    check_timing(args.batch_size, args.seconds)
    report.check_targets(json=args.json, markdown=args.markdown)
    if args.host:
        time_host(args)
        return
    shapes = [op_cases.OpShape.parse(text) for text in args.shapes or op_cases.DEFAULT_SHAPES]
    functions = op_cases.formulations(args.backends)
    device, dtype = use_device(args.device, args.threads), getattr(torch, args.dtype)
    batch = args.batch_size or BATCH_SIZES[device.type]
    rows = []
    with comparable_convolutions():
        ceilings = op_benchmark.measure_ceilings(dtype, device, args.seconds)
        for index, shape in enumerate(shapes, 1):
            start = time.perf_counter()
            rows += op_benchmark.benchmark_shape(
                shape, functions, batch, dtype, device, args.seconds, ceilings,
                args.modulated, args.channels_last,
            )  # fmt: skip
            spent = time.perf_counter() - start
            print(f'[{index}/{len(shapes)}] {shape}: {spent:.0f} s', file=sys.stderr, flush=True)
    where = report.environment(device)
    kind = ' '.join(
        [args.dtype, *['modulated'] * args.modulated, *['channels last'] * args.channels_last]
    )
    results = dict(
        **where, dtype=args.dtype, modulated=args.modulated, channels_last=args.channels_last,
        seconds=args.seconds, ceilings=ceilings, rows=rows,
    )  # fmt: skip
    report.write_report(
        f'The contextual convolution, {kind}',
        op_table.op_cells(rows),
        op_table.op_notes(rows, ceilings, report.describe(where)),
        results,
        args.json,
        args.markdown,
    )
    if any(row['status'] == FAILED for row in rows):
        sys.exit(1)


def time_host(args):
    """Measure the host time, for `--host`."""
    from . import host_time

    host_time.disable_launches(os.environ)
    rows = host_time.measure(args.seconds)
    where = report.environment(torch.device('cpu'))
    report.write_report(
        'Host time of the Triton back end, launching replaced by nothing',
        host_time.cells(rows),
        [report.describe(where)],
        dict(**where, seconds=args.seconds, rows=rows),
        args.json,
        args.markdown,
    )
