"""Command line options that the tools share."""

import argparse
import os

from mmengine.config import DictAction

from mmctx.text import read_text


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
    """Add the options of training and testing to a parser: folder, config settings, launcher."""
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


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a trained network to apply to files, to the parser of a command."""
    parser.add_argument('--checkpoint', required=True, help='checkpoint file or address')
    parser.add_argument(
        '--config', help='config file of the network (the config that the checkpoint holds)'
    )
    parser.add_argument(
        '--classes', metavar='FILE', help='text file with a class name on each line'
    )
    parser.add_argument(
        '--device', help='device, such as cpu or cuda:1 (an accelerator if there is one)'
    )


def class_names(args: argparse.Namespace) -> list[str] | None:
    """Names of the classes in the file that `--classes` names; None without the option."""
    return read_text(args.classes).splitlines() if args.classes else None
