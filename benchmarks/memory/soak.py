"""Train the demo for a long time on the CPU and check that its memory stays flat.

Loader workers, validation and checkpoints are included. Exit status 1: memory grew beyond the
limit, or there were fewer than two validations; 2: memory could not be measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mmctx.errors import UserError

from .processes import memory_report, training_report, watch

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'mask_rcnn_ctx_convnext_shapes.py'
ENDLESS = 100_000


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=30, help='minutes to train for (30)')
    parser.add_argument(
        '--limit', type=float, default=50, metavar='MB', help='most that memory may grow (50)'
    )
    parser.add_argument(
        '--interval', type=float, default=5, help='seconds between two samples of the memory (5)'
    )
    parser.add_argument(
        '--data',
        type=Path,
        default=Path('data/shapes'),
        help='folder of the rendered images (data/shapes)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/soak'),
        help='folder of the runs (work_dirs/soak)',
    )
    parser.add_argument(
        '--images',
        type=int,
        nargs=2,
        default=(800, 100),
        metavar=('TRAIN', 'VAL'),
        help='images of an epoch, which ends with a validation and a checkpoint (800 100)',
    )
    args = parser.parse_args()
    if args.minutes <= 0 or args.interval <= 0 or min(args.images) < 8:
        parser.error('--minutes and --interval must be positive, and --images at least 8')
    return args


def show(sample):
    print(
        f'{sample.seconds / 60:6.1f} min {sample.memory:8.1f} MB in {sample.processes} processes',
        flush=True,
    )


def tool(name, *arguments):
    return [sys.executable, str(ROOT / 'tools' / name), *map(str, arguments)]


def main():
    args = parse_args()
    render = tool('dataset_converters/render_shapes.py', args.data)
    if subprocess.run(render, check=False).returncode:
        raise UserError(f'the images cannot be rendered into {args.data}')
    work_dir = args.work_dir / time.strftime('%Y%m%d_%H%M%S')
    work_dir.mkdir(parents=True)
    train, val = args.images
    options = [
        f'train_cfg.max_epochs={ENDLESS}',
        f'train_dataloader.dataset.indices={train}',
        f'val_dataloader.dataset.indices={val}',
    ]
    log = work_dir / 'output.txt'
    with open(log, 'w', encoding='utf-8') as out:
        samples, ended = watch(
            tool('train.py', CONFIG, '--work-dir', work_dir, '--cfg-options', *options),
            args.minutes * 60,
            args.interval,
            show,
            env=dict(os.environ, SHAPES_ROOT=str(args.data), CUDA_VISIBLE_DEVICES=''),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if ended is not None:
        raise UserError(f'training ended by itself with status {ended}: see {log}')
    report = {
        'minutes': args.minutes,
        **memory_report(samples),
        'limit_mb': args.limit,
        **training_report(work_dir),
    }
    result = work_dir / 'soak.json'
    result.write_text(json.dumps(dict(report, samples=samples), indent=1))
    speed = report['iterations_per_second']
    print(
        f'{report["iterations"]} iterations and {report["validations"]} validations in '
        f'{args.minutes:g} minutes\n'
        f'memory: {report["mb_settled"]:.1f} MB after a quarter of the time, '
        f'{report["mb_at_end"]:.1f} MB at the end, at most {report["mb_peak"]:.1f} MB\n'
        f'fitted: {report["slope_mb_per_hour"]:+.1f} MB an hour, {report["growth_mb"]:+.1f} MB in '
        f'this time (limit {args.limit:g})\n'
        f'speed: {speed["first_third"]:.2f} iterations/s in the first third, '
        f'{speed["last_third"]:.2f} in the last\n'
        f'see {result}'
    )
    if report['growth_mb'] > args.limit:
        sys.exit('memory has grown beyond the limit')
    if report['validations'] < 2:
        sys.exit('there were fewer than two validations: run longer or with fewer --images')
