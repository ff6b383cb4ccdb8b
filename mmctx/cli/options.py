"""Command line options that the tools share."""

import argparse
import os

from mmengine.config import DictAction


class CfgOptions(DictAction):
    """mmengine's `--cfg-options` action, which explains itself when a value is missing."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            parser.error(f'{option_string} takes KEY=VALUE, got {" ".join(values)} ({error})')


class LocalRank(argparse.Action):
    """The number that older launchers pass as an argument, put where today's put it."""

    def __call__(self, parser, namespace, values, option_string=None):
        os.environ.setdefault('LOCAL_RANK', str(values))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that a run of any kind has: its folder, config settings and launcher.

    Args:
        parser (argparse.ArgumentParser): The parser of a tool, changed in place.
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
        help='what started this process (none)',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, action=LocalRank, help='set by older launchers'
    )
