"""Check Kinetics-400's videos and write the lists that the configs read.

Videos are beneath ROOT/videos_train/ and ROOT/videos_val/, each in a folder named like its class;
or, with --csv, anywhere in there under the names that Kinetics' downloaders give them
(<youtube id>_<start>_<end>.mp4). Writes kinetics400_{train,val}_list_videos.txt, the classes in the
order of their numbers, and a table with each video's frames, duration, size and problem. An
interrupted run resumes where it stopped.
"""

import argparse
import os
from pathlib import Path

from mmctx.cli.tool import run_tool
from mmctx.errors import UserError


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', type=Path, help='folder of the data, the K400_ROOT of the configs')
    parser.add_argument(
        '--csv', nargs='+', type=Path, default=[], metavar='FILE', help="Kinetics' own tables"
    )
    parser.add_argument(
        '--classes',
        type=Path,
        metavar='FILE',
        help='class names in the order of their numbers, one a line (sorted names)',
    )
    parser.add_argument(
        '--full',
        action='store_true',
        help="decode every frame, not each video's first alone: slower, finds damage within",
    )
    parser.add_argument(
        '--skip-broken', action='store_true', help='leave broken videos out of the lists'
    )
    parser.add_argument('--out', type=Path, help='folder to write to (ROOT)')
    parser.add_argument(
        '--nproc',
        type=int,
        default=min(os.cpu_count(), 8),
        help='number of processes (one for each CPU)',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    if args.nproc < 1:
        raise UserError(f'--nproc must be at least 1, not {args.nproc}')
    out = args.out or args.root
    if not out.is_dir():
        raise UserError(f'folder {out} does not exist')
    from mmctx.datasets.kinetics_lists import find_splits, number_classes, prepare, read_classes

    splits = find_splits(args.root, args.csv)
    numbers = number_classes(splits, read_classes(args.classes) if args.classes else None)
    try:
        (out / 'kinetics400_classes.txt').write_text('\n'.join([*numbers, '']), encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'cannot write to {out}: {error.strerror}; name another folder with --out'
        ) from error
    for line in prepare(splits, numbers, out, args.full, args.skip_broken, args.nproc):
        print(line, flush=True)
    if len(numbers) != 400:
        print(
            f'{len(numbers)} classes, Kinetics-400 has 400: set num_classes={len(numbers)} in the '
            "config's data sets and model.cls_head"
        )


if __name__ == '__main__':
    try:
        run_tool(main)
    except KeyboardInterrupt:
        raise SystemExit('interrupted; the same command resumes from here') from None
