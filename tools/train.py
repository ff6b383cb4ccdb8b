"""Train a model of mmdet, mmpretrain or mmaction2 from a config file."""

import argparse

from mmctx.cli.options import add_run_options
from mmctx.cli.tool import run_tool


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size, from auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a name from the last one in the work dir',
    )
    parser.add_argument(
        '--nonfinite-loss',
        choices=['stop', 'skip', 'ignore'],
        help='what to do about a batch whose loss is infinite or not a number: stop (default), '
        'leave it out with a warning, or nothing',
    )
    add_run_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    from mmctx.cli.running import run_config
    from mmctx.cli.switches import training_config

    run_config(training_config(args), 'train')


if __name__ == '__main__':
    run_tool(main)
