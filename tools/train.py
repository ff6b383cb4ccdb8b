"""Train a model of mmdet, mmpretrain or mmaction2 from a config file."""

import argparse
import os

from mmctx.cli.options import CfgOptions
from mmctx.cli.tool import run_tool


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
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
        help='go on from a checkpoint; without a name from the last one in the work dir',
    )
    parser.add_argument(
        '--nonfinite-loss',
        choices=['stop', 'skip', 'ignore'],
        help='what to do about a batch whose loss is infinite or not a number: stop (default), '
        'leave it out with a warning, or nothing',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. train_dataloader.batch_size=4 pretrained=None; '
        'lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, help='set by older launchers')
    return parser.parse_args()


def main():
    args = parse_args()
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmctx.cli.config import load_config, set_training
    from mmctx.cli.running import build_runner, run
    from mmctx.compat.launch import leave_launcher

    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    set_training(cfg, args.amp, args.auto_scale_lr, args.resume)
    if args.nonfinite_loss:
        cfg.nonfinite_loss = args.nonfinite_loss
    run(build_runner(cfg, 'train'), 'train')
    leave_launcher()


if __name__ == '__main__':
    run_tool(main)
