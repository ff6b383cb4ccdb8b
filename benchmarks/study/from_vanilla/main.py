"""What context adds to a trained vanilla network.

`pack` compresses Tiny-ImageNet into one small file. `train` trains a vanilla network and keeps it,
then trains every row from its weights: the vanilla network itself, the rows of the paper's Table 4,
other ways to make the prior, and controls. The same command resumes after the last row that was
finished.
"""

import argparse
import sys
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from benchmarks.timing import pick_device
from mmctx.errors import UserError

from .images import write_packed
from .rows import MAIN, ROWS
from .session import Recipe, Session

NOT_DONE = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    pack = commands.add_parser('pack', help='compress Tiny-ImageNet into one file')
    pack.add_argument('data', type=Path, help='file to write')
    pack.add_argument('--root', default='data/tiny_imagenet', help='folder of the set')
    pack.add_argument('--cache', default='data/packed', help='folder of the decoded images')
    pack.add_argument('--classes', type=int, default=100, help='number of classes (100)')
    pack.add_argument('--quality', type=int, default=40, help="WebP's quality (40)")
    train = commands.add_parser('train', help='train, and print the table')
    train.add_argument('data', type=Path, help='file that `pack` wrote')
    train.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs', 'from_vanilla'),
        help='results (work_dirs/from_vanilla)',
    )
    train.add_argument('--weights', type=Path, help='vanilla weights (weights/ in --out)')
    train.add_argument(
        '--minutes',
        type=float,
        default=float('inf'),
        help='end by then, with the rows that are done (no limit)',
    )
    known = ', '.join(row.key for row in ROWS)
    train.add_argument(
        '--rows',
        nargs='+',
        metavar='ROW',
        help=f'these, in this order (the first {len(MAIN)}), of: {known}',
    )
    train.add_argument('--seeds', type=int, default=3, help='number of seeds (3)')
    train.add_argument(
        '--at-once', type=int, default=2, help='number of rows that are trained side by side (2)'
    )
    for name, value in Recipe()._asdict().items():
        option = f'--{name.replace("_", "-")}'
        train.add_argument(option, type=type(value), default=value, help=f'see Recipe ({value})')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == 'pack':
        write_packed(args.root, args.cache, args.data, args.classes, args.quality)
        print(f'{args.data}: {args.data.stat().st_size / 2**20:.1f} MiB')
        return
    rows = {row.key: row for row in ROWS}
    unknown = [key for key in args.rows or () if key not in rows]
    if unknown:
        raise UserError(f'no row {", ".join(unknown)}; the rows are {", ".join(rows)}')
    for name in ('seeds', 'bases', 'at_once'):
        if getattr(args, name) < 1:
            option = name.replace('_', '-')
            raise UserError(f'--{option} must be at least 1, not {getattr(args, name)}')
    torch.backends.cudnn.benchmark = True
    # mmengine reports each parameter's options through the current logger.
    MMLogger.get_instance('from_vanilla', log_level='WARNING')
    recipe = Recipe(**{name: getattr(args, name) for name in Recipe._fields})
    weights = args.weights or args.out / 'weights'
    device = pick_device()
    session = Session(args.data, args.out, weights, recipe, args.seeds, device)
    try:
        keys = args.rows or [row.key for row in MAIN]
        done = session.run([rows[key] for key in keys], args.minutes, args.at_once)
    finally:
        session.tabulate()
    if not done:
        sys.exit(NOT_DONE)
