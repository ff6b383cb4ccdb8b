"""Command line options that name a trained network, for commands that apply it to files."""

import argparse

from mmctx.text import read_text


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a network: checkpoint, config, names of classes and device.

    Args:
        parser (argparse.ArgumentParser): Parser of a command, changed in place.
    """
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
