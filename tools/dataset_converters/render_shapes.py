"""Render the small instance-segmentation set that the demo trains on."""

import argparse
import os

from mmctx.cli.tool import run_tool
from mmctx.datasets.shapes import render_dataset


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', help='folder to write the set to, in COCO format')
    parser.add_argument(
        '--num-train', type=int, default=1600, help='number of training images (1600)'
    )
    parser.add_argument(
        '--num-val', type=int, default=200, help='number of validation images (200)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the whole set (0)')
    parser.add_argument(
        '--nproc',
        type=int,
        default=min(os.cpu_count(), 8),
        help='number of processes (one for each CPU)',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    rendered = render_dataset(args.out, args.num_train, args.num_val, args.seed, args.nproc)
    state = 'rendered into' if rendered else 'already complete in'
    print(f'{args.num_train} training and {args.num_val} validation images {state} {args.out}')


if __name__ == '__main__':
    run_tool(main)
