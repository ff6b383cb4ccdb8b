"""Command line options that the tools share."""

import argparse
import os

from mmengine.config import DictAction


class CfgOptions(DictAction):
    """mmengine's `--cfg-options` action, with a clear error message if a value is missing."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            parser.error(f'{option_string} takes KEY=VALUE, got {" ".join(values)} ({error})')


class LocalRank(argparse.Action):
    """Local rank that older launchers pass as an argument; stored in LOCAL_RANK."""

    def __call__(self, parser, namespace, values, option_string=None):
        os.environ.setdefault('LOCAL_RANK', str(values))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share: folder, config settings and launcher.

    Args:
        parser (argparse.ArgumentParser): Parser of a tool, changed in place.
    """
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and metrics')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. train_dataloader.batch_size=4 pretrained=None; '
        'lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher that started this process (none)',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, action=LocalRank, help='set by older launchers'
    )
