"""Measure time and memory of configured networks and of their vanilla counterparts.

A network with wrong results in a mode is not timed, and the exit status is then 1.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from mmengine.logging import MMLogger

from benchmarks import report
from benchmarks.text import FAILED
from benchmarks.timing import check_timing, comparable_convolutions, use_device
from mmctx.cli.config import load_config
from mmctx.cli.options import CfgOptions
from mmctx.cli.running import build_model
from mmctx.compat.config_paths import resolve
from mmctx.errors import UserError

from . import model_benchmark, model_table, networks

SMALLEST = 32
SHAPES = {'mmdet': (800, 1280), 'mmpretrain': (224, 224)}
# For classifiers and for detectors, by kind of device.
BATCH_SIZES = {
    'cpu': {'mmpretrain': 4, 'mmdet': 1},
    'cuda': {'mmpretrain': 128, 'mmdet': 4},
}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='+', type=Path, help='config of a classifier or a detector')
    parser.add_argument(
        '--modes',
        nargs='+',
        default=['eager'],
        metavar='MODE',
        help='eager, or some of amp, channels-last, compile and graph joined by + (eager); amp is '
        'float16 on a GPU and bfloat16 on a CPU; graph runs the backbone as a CUDA graph',
    )
    parser.add_argument(
        '--baseline',
        type=Path,
        metavar='CONFIG',
        help="config that ratios are to; by default the one that the paper's tables pair with it",
    )
    parser.add_argument('--no-baseline', action='store_true', help='time only the configs')
    parser.add_argument(
        '--batch-size',
        type=int,
        help='images at a time (4 on a CPU, 128 on a GPU; of detectors 1 and 4)',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels (800 1280 of detectors, 224 224 of classifiers)',
    )
    parser.add_argument('--no-train', action='store_true', help='do not time training steps')
    parser.add_argument('--device', help='cpu, cuda or cuda:N (the GPU where there is one)')
    parser.add_argument('--threads', type=int, help='number of threads of the CPU')
    parser.add_argument(
        '--seconds',
        type=float,
        default=2.0,
        help='seconds to time each figure for, 3 runs at least (2)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the table')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw the ratios, such as r.png')
    parser.add_argument(
        '--trace',
        type=Path,
        metavar='FOLDER',
        help='write traces of what host and device do, for ui.perfetto.dev',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='changes of settings of the configs',
    )
    return parser.parse_args()


def check(args):
    """Refuse options that would only fail after the measurement."""
    check_timing(args.batch_size, args.seconds)
    if args.shape and min(args.shape) < SMALLEST:
        raise UserError(f'--shape {args.shape[0]} {args.shape[1]} is smaller than {SMALLEST}')


def load(path, options):
    """Load a config, and build its network with random offsets."""
    cfg = load_config(str(path), {'pretrained': None, **options})
    if cfg.default_scope not in SHAPES:
        raise UserError(f'{path} is of {cfg.default_scope}; this tool serves {list(SHAPES)}')
    return networks.randomize_predictors(build_model(cfg)), cfg


def networks_of(path, args):
    """Build the networks of a config and of its baseline, if there is one, by name."""
    found = {path.stem: load(path, args.cfg_options or {})}
    baseline = args.baseline
    if baseline is None and (name := networks.vanilla_config(path)):
        baseline = Path(resolve(f'{name}.py'))
    if baseline is not None and not args.no_baseline:
        if baseline.stem == path.stem:
            raise UserError(f'--baseline {baseline} is the config itself')
        # Options apply to the given configs; a counterpart may lack the settings that they change.
        found[baseline.stem] = load(baseline, {})
    return found


def main():
    args = parse_args()
    check(args)
    MMLogger.get_current_instance().setLevel('WARNING')
    report.check_targets(json=args.json, markdown=args.markdown, plot=args.plot, trace=args.trace)
    if args.trace:
        args.trace.mkdir(exist_ok=True)
    modes = [networks.parse_mode(text) for text in args.modes]
    device = use_device(args.device, args.threads)
    rows, sizes = [], []
    for path in args.config:
        # Output of mmengine and the networks; stdout is only for the table.
        with contextlib.redirect_stdout(sys.stderr):
            group = networks_of(path, args)
        scope = group[path.stem][1].default_scope
        batch = args.batch_size or BATCH_SIZES[device.type][scope]
        shape = tuple(args.shape or SHAPES[scope])
        sizes.append(f'{path.stem}: batch {batch}, {shape[1]}×{shape[0]}.')
        with comparable_convolutions():
            rows += model_benchmark.benchmark_networks(
                group, modes, shape, batch, device, args.seconds, not args.no_train,
                progress=lambda line: print(line, file=sys.stderr, flush=True),
                traces=args.trace,
            )  # fmt: skip
    where = report.environment(device)
    amp = str(networks.AMP_DTYPES[device.type]).removeprefix('torch.')
    cells = model_table.model_cells(rows)
    notes = model_table.model_notes(rows, report.describe(where), ' '.join(sizes), amp)
    results = dict(**where, amp_dtype=amp, seconds=args.seconds, rows=rows)
    title = 'Networks beside their vanilla counterparts'
    report.write_report(title, cells, notes, results, args.json, args.markdown)
    if args.plot and not model_table.draw_ratios(rows, args.plot, where['device']):
        print('no ratio to draw: no counterpart was timed', file=sys.stderr)
    if any(row['status'] == FAILED for row in rows):
        sys.exit(1)
