"""Train the study's networks, with and without context, and put their figures into a table.

The same command goes on where an earlier one stopped. Finished runs are kept in the folder of
results (`runs.jsonl`), and `--table` makes its table and curves anew without training.

Tiny-ImageNet is read from the environment variable TINY_IMAGENET_ROOT, else from
data/tiny_imagenet/; the shapes are rendered into SHAPES_ROOT, else into data/shapes/.
"""

import argparse
import os
import sys
from pathlib import Path

from mmctx.apis.study.plan import PARTS, SIZE_VARIABLE, SIZES, plan_runs
from mmctx.cli.tool import run_tool
from mmctx.errors import UserError

NOT_DONE = 3
PROCESSES = {'cpu': 2, 'cpu_long': 2, 'gpu': 3}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--size',
        choices=SIZES,
        default='cpu',
        help='an hour on 2 cores, for a few rows four times as long, or a GPU',
    )
    parser.add_argument('--part', choices=list(PARTS), help='only this one')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these, e.g. a1 a5')
    parser.add_argument('--seeds', type=int, default=0, help='for every row, instead of its own')
    parser.add_argument('--jobs', type=int, help='trainings at a time (2, on a GPU 3)')
    parser.add_argument(
        '--minutes',
        type=float,
        default=float('inf'),
        help=f'stop after so many, with exit status {NOT_DONE} if something is left to do',
    )
    parser.add_argument(
        '--work-dir', type=Path, help='logs and checkpoints (work_dirs/study_<size>)'
    )
    parser.add_argument('--out', type=Path, help='results (benchmarks/study_<size>)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change settings of all configs, as with tools/train.py; name another --out',
    )
    parser.add_argument('--table', action='store_true', help='train nothing')
    args = parser.parse_args()
    args.work_dir = args.work_dir or Path('work_dirs', f'study_{args.size}')
    args.out = args.out or Path('benchmarks', f'study_{args.size}')
    args.jobs = PROCESSES[args.size] if args.jobs is None else args.jobs
    return args


def main():
    args = parse_args()
    for name in ('jobs', 'minutes'):
        if not getattr(args, name) > 0:
            raise UserError(f'--{name} must be more than 0, not {getattr(args, name)}')
    if args.seeds < 0:
        raise UserError(f'--seeds must not be {args.seeds}')
    runs = plan_runs([args.part] if args.part else list(PARTS), args.rows, args.seeds)
    # The configs read it, here and in the trainings.
    os.environ[SIZE_VARIABLE] = args.size
    if args.size != 'gpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    from mmctx.apis.study.session import Study, run_study, tabulate

    study = Study(
        runs, args.size, args.work_dir, args.out, args.cfg_options, args.jobs, args.minutes
    )
    if args.table:
        tabulate(study)
    elif not run_study(study):
        sys.exit(NOT_DONE)


if __name__ == '__main__':
    try:
        run_tool(main)
    except KeyboardInterrupt:
        sys.exit('interrupted; the same command goes on from the last checkpoints')
