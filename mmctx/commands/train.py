"""Train a model of mmdet, mmpretrain or mmaction2 from a config file."""

import argparse

from mmctx.cli.options import add_run_options


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (GPU)')
    parser.add_argument(
        '--cuda-graph',
        action='store_true',
        help='run the backbone as a CUDA graph (GPU): faster where a batch is small or the GPU '
        'waits for the host; for images of one size',
    )
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


def main() -> None:
    """Run the command."""
    args = parse_args()
    # Imported after the arguments are parsed, as these import torch.
    from mmctx.cli.config import load_config
    from mmctx.cli.running import run_config
    from mmctx.cli.switches import set_training

    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    set_training(
        cfg, args.amp, args.auto_scale_lr, args.resume, args.nonfinite_loss, args.cuda_graph
    )
    run_config(cfg, 'train')
