"""Test a model of mmdet, mmpretrain or mmaction2: metrics, pictures, predictions."""

import argparse
import os

from mmctx.cli.options import CfgOptions
from mmctx.cli.tool import run_tool


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for logs and metrics')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that a window stays')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change settings of the config; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument(
        '--tta', action='store_true', help="the config's tta_model and tta_pipeline"
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help='set by older launchers')
    return parser.parse_args()


def main():
    args = parse_args()
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmctx.cli.config import load_config, set_testing
    from mmctx.cli.running import build_runner, run
    from mmctx.compat.launch import leave_launcher

    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    set_testing(cfg, args.checkpoint, args.out, args.show, args.show_dir, args.wait_time, args.tta)
    run(build_runner(cfg, 'test'), 'test')
    leave_launcher()


if __name__ == '__main__':
    run_tool(main)
