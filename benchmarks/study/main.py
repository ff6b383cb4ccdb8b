"""Train the study's networks, with and without context, and write a table of their results.

The same command resumes where an earlier one stopped. Finished runs are kept in the folder of
results (`runs.jsonl`), and `--table` writes table and curves again without training.

Tiny-ImageNet is read from the folder in the environment variable TINY_IMAGENET_ROOT, by default
data/tiny_imagenet/; the shapes are rendered into SHAPES_ROOT, by default data/shapes/.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from mmctx.cli.options import CfgOptions
from mmctx.errors import UserError

from .plan import PARTS, SIZES, plan_runs

NOT_DONE = 3
PROCESSES = {'cpu': 2, 'cpu_long': 2, 'gpu': 3}


class KeptOptions(CfgOptions):
    """`--cfg-options` as a dict, and unchanged for the command lines of the trainings."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.given_options = values
        super().__call__(parser, namespace, values, option_string)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--size',
        choices=SIZES,
        default='cpu',
        help='an hour on 2 cores, for a few rows four times as long, or a GPU (cpu)',
    )
    parser.add_argument('--part', choices=list(PARTS), help='train only this part')
    parser.add_argument(
        '--rows', nargs='+', metavar='ROW', help='train only these rows, e.g. a1 a5'
    )
    parser.add_argument(
        '--seeds', type=int, default=0, help='number of seeds for every row, instead of its own'
    )
    parser.add_argument('--jobs', type=int, help='trainings at a time (2, on a GPU 3)')
    parser.add_argument(
        '--minutes',
        type=float,
        default=float('inf'),
        help='stop training after so many minutes, with exit status '
        f'{NOT_DONE} if something is left to do',
    )
    parser.add_argument(
        '--work-dir', type=Path, help='logs and checkpoints (work_dirs/study_<size>)'
    )
    parser.add_argument('--out', type=Path, help='results (benchmarks/study_<size>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeptOptions,
        default={},
        metavar='KEY=VALUE',
        help='change settings of all configs, as with tools/train.py; name another --out',
    )
    parser.add_argument(
        '--table',
        action='store_true',
        help='print the table of the results so far and train nothing',
    )
    parser.set_defaults(given_options=[])
    args = parser.parse_args()
    args.work_dir = (args.work_dir or Path('work_dirs', f'study_{args.size}')).absolute()
    args.out = args.out or Path('benchmarks', f'study_{args.size}')
    args.jobs = PROCESSES[args.size] if args.jobs is None else args.jobs
    return args


def check(args):
    """Refuse options that make no sense, before anything is trained."""
    for name in ('jobs', 'minutes'):
        if not getattr(args, name) > 0:
            raise UserError(f'--{name} must be more than 0, not {getattr(args, name)}')
    if args.seeds < 0:
        raise UserError(f'--seeds must not be {args.seeds}')
    if args.size == 'gpu' and not args.table:
        import torch

        if not torch.cuda.is_available():
            raise UserError('--size gpu needs a GPU, and PyTorch sees none here')


def main():
    args = parse_args()
    check(args)
    parts = [args.part] if args.part else list(PARTS)
    runs = plan_runs(args.size, parts, args.rows, args.seeds)
    if args.size != 'gpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    # SIGTERM is handled like Ctrl-C, which ends the trainings in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Imported here because it imports torch, which reads CUDA_VISIBLE_DEVICES.
    from .session import Study

    study = Study(args.size, args.out, args.work_dir, args.cfg_options, args.given_options)
    if args.table:
        study.tabulate()
        return
    try:
        done = study.run(runs, args.jobs, args.minutes)
    except KeyboardInterrupt:
        from mmctx.engine.hooks.interruption_hook import EXIT_STATUS

        print('interrupted; the same command resumes from the last checkpoints', file=sys.stderr)
        sys.exit(EXIT_STATUS)
    if not done:
        sys.exit(NOT_DONE)
