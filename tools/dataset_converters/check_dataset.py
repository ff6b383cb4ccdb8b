"""Read a whole data set and name everything that is broken or does not fit together.

coco           ROOT/annotations/instances_<split>.json, each with the images in ROOT/<split>/,
               or the files of --ann-files with the images in ROOT or --images
imagenet       ROOT/{train,val}/<class>/, or ROOT/{train,val}/ with ROOT/meta/{train,val}.txt
tiny_imagenet  ROOT/{train,val}/<class>/, or ROOT/{train,val}*.zip
kinetics       ROOT/videos_{train,val}/ with ROOT/kinetics400_{train,val}_list_videos.txt

Every image and every frame of every video is decoded. A problem is a line on stdout, the file and
the reason separated by a tab. The exit status is 0 for a clean data set, 1 for one with problems,
2 where there is none.
"""

import argparse
import os
import sys
from pathlib import Path

from mmctx.cli.tool import run_tool
from mmctx.errors import UserError

INTERRUPTED = 130
CLASSES = {'imagenet': 1000, 'tiny_imagenet': 200, 'kinetics': 400}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('kind', choices=['coco', *CLASSES])
    parser.add_argument('root', type=Path, help='folder of the data')
    parser.add_argument(
        '--splits', nargs='+', metavar='SPLIT', help='splits to check (all that there are)'
    )
    parser.add_argument(
        '--ann-files',
        nargs='+',
        type=Path,
        default=[],
        metavar='FILE',
        help="annotation files in COCO's format, from ROOT, whatever their names (coco only)",
    )
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER', help='folder of their images, from ROOT (ROOT)'
    )
    parser.add_argument('--classes', type=int, metavar='N', help='number of classes, not for coco')
    parser.add_argument(
        '--report', type=Path, metavar='FILE', help='file to write the problems to as well'
    )
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='number of processes (one for each CPU)'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=300,
        metavar='SECONDS',
        help='longest time for one file (300)',
    )
    args = parser.parse_args()
    if args.workers < 1 or args.timeout <= 0 or (args.classes is not None and args.classes < 1):
        parser.error('--workers, --timeout and --classes must be positive')
    if (args.ann_files or args.images) and args.kind != 'coco':
        parser.error('--ann-files and --images are for coco')
    if args.images and not args.ann_files:
        parser.error('--images goes with --ann-files')
    if args.classes and args.kind == 'coco':
        parser.error('--classes is not for coco, whose categories stand in its annotations')
    return args


def plan(args):
    if args.kind == 'coco':
        from mmctx.datasets.checks.coco.full import plan_coco

        return plan_coco(args.root, args.splits, args.ann_files, args.images)
    from mmctx.datasets.checks import imagenet, kinetics

    make = {
        'imagenet': imagenet.plan_imagenet,
        'tiny_imagenet': imagenet.plan_tiny_imagenet,
        'kinetics': kinetics.plan_kinetics,
    }[args.kind]
    return make(args.root, args.splits, args.classes or CLASSES[args.kind])


def main():
    args = parse_args()
    if not args.root.is_dir():
        raise UserError(f'folder {args.root} does not exist')
    planned = plan(args)
    try:
        report = open(args.report or os.devnull, 'w', encoding='utf-8')  # noqa: SIM115
    except OSError as error:
        raise UserError(f'cannot write {args.report}: {error.strerror}') from error
    from mmctx.datasets.checks.full_check import problems_of

    count = 0
    with report:
        for problem in problems_of(planned, args.workers, args.timeout):
            count += 1
            line = '\t'.join(' '.join(part.split()) for part in problem)
            print(line, flush=True)
            print(line, file=report, flush=True)
    print(f'{args.root}: {planned.contents}: {count or "no"} problem{"s" * (count != 1)}')
    sys.exit(1 if count else 0)


if __name__ == '__main__':
    try:
        run_tool(main)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(INTERRUPTED)
