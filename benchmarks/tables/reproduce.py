"""Print a table of the paper beside this project's figures, or how to train its rows.

Parameters, FLOPs and throughput are measured now; accuracies come from finished runs. On a CPU a
row takes about ten seconds, a row of Table 3 a minute.
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

from benchmarks.text import as_markdown, as_text
from benchmarks.timing import check_timing, name_device, pick_device
from mmctx.errors import UserError

from .figures import legend, measure_row, table_cells
from .launch_commands import launch_commands
from .paper import TABLES, paper_table

# For classifiers, and for recognizers and detectors, by kind of device.
BATCH_SIZES = {'cpu': (4, 1), 'cuda': (64, 4)}
LARGE = (2, 3)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'number', type=int, metavar='N', help=f'one of {", ".join(map(str, TABLES))}'
    )
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows, e.g. a1 a5')
    parser.add_argument(
        '--train', action='store_true', help='print the commands that train the rows, no table'
    )
    parser.add_argument('--partition', default='PARTITION', help="slurm's partition, for --train")
    parser.add_argument(
        '--work-dirs', type=Path, default=Path('work_dirs'), help='folder of the runs (work_dirs)'
    )
    parser.add_argument(
        '--markdown',
        nargs='?',
        const='-',
        metavar='FILE',
        help='print Markdown; with a name, write it to that file beside the printed text',
    )
    parser.add_argument('--no-throughput', action='store_true', help='measure no speed')
    parser.add_argument(
        '--batch-size',
        type=int,
        help='images or clips at a time, for img/s; by default 4 on a CPU and 64 on a GPU, for '
        'Tables 2 and 3 1 and 4',
    )
    parser.add_argument(
        '--seconds', type=float, default=2.0, help='seconds of timing for each row (2)'
    )
    return parser.parse_args()


def check(args):
    """Refuse options that would only fail after the measurement."""
    check_timing(args.batch_size, args.seconds)
    if args.markdown not in (None, '-') and not Path(args.markdown).parent.is_dir():
        raise UserError(f'--markdown {args.markdown}: its folder does not exist')


def measure(table, work_dirs, batch_size, seconds):
    figures = {}
    for index, row in enumerate(table.rows, 1):
        start = time.perf_counter()
        # mmengine's loggers write to stdout, which is only for the table.
        with contextlib.redirect_stdout(sys.stderr):
            figures[row.key] = measure_row(table, row, work_dirs, batch_size, seconds)
        spent = time.perf_counter() - start
        print(f'[{index}/{len(table.rows)}] {row.key}: {spent:.0f} s', file=sys.stderr, flush=True)
    return figures


def main():
    args = parse_args()
    table = paper_table(args.number, args.rows)
    check(args)
    if args.train:
        for row in table.rows:
            print(*launch_commands(row, args.work_dirs, args.partition), '', sep='\n')
        return
    batch_size, where = 0, ''
    if not args.no_throughput:
        device = pick_device()
        batch_size = args.batch_size or BATCH_SIZES[device.type][args.number in LARGE]
        where = f'{name_device(device)}, batch {batch_size}'
    cells = table_cells(table, measure(table, args.work_dirs, batch_size, args.seconds))
    title = f'Table {args.number}: {table.title}'
    notes = legend(table, where)
    text = '\n'.join([title, '', as_text(cells), '', *notes])
    markdown = '\n\n'.join([f'**{title}**', as_markdown(cells), *notes])
    print(markdown if args.markdown == '-' else text)
    if args.markdown not in (None, '-'):
        Path(args.markdown).write_text(f'{markdown}\n', encoding='utf-8')
