"""Test a model of mmdet, mmpretrain or mmaction2: metrics, pictures, predictions."""

import argparse

from mmctx.cli.options import add_run_options


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that a window stays open'
    )
    parser.add_argument(
        '--tta', action='store_true', help="use the config's tta_model and tta_pipeline"
    )
    add_run_options(parser)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_args()
    # Imported after the arguments are parsed, as these import torch.
    from mmctx.cli.config import load_config
    from mmctx.cli.running import run_config
    from mmctx.cli.switches import set_testing

    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    set_testing(cfg, args.checkpoint, args.out, args.show, args.show_dir, args.wait_time, args.tta)
    run_config(cfg, 'test')
