"""Render the small classification set of coloured shapes, a folder for each of its 40 classes."""

import argparse

from mmctx.cli.tool import run_tool
from mmctx.datasets.coloured_shapes import CLASSES, render_folders


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', help='folder to write train/ and val/ to')
    parser.add_argument(
        '--train-each', type=int, default=100, help='training images of each class (100)'
    )
    parser.add_argument(
        '--val-each', type=int, default=10, help='validation images of each class (10)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the whole set (0)')
    return parser.parse_args()


def main():
    args = parse_args()
    render_folders(args.out, args.train_each, args.val_each, args.seed)
    print(f'{len(CLASSES)} classes of coloured shapes are in {args.out}')


if __name__ == '__main__':
    run_tool(main)
