"""Arguments that mmpretrain's `vis_tsne` needs for a contextual classifier.

It takes the maps that `out_indices` name from the backbone, which returns logits instead.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import DictAction

from .config import load_config

MERGE = '--cfg-options'
MAPS = 'model.backbone.out_type=featmap'


def prepare_vis_tsne(arguments: Sequence[str]) -> list[str]:
    """Let a backbone with `out_type='logits'` return maps.

    Args:
        arguments (Sequence[str]): Arguments of `vis_tsne`.

    Returns:
        list[str]: Arguments with that setting added, if it is needed.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('config', nargs='?')
    parser.add_argument(MERGE, nargs='+', action=DictAction)
    args, _ = parser.parse_known_args(arguments)
    if args.config is None:
        return list(arguments)
    backbone = load_config(args.config, args.cfg_options).get('model', {}).get('backbone') or {}
    if backbone.get('out_type') != 'logits':
        return list(arguments)
    if MERGE not in arguments:
        return [*arguments, MERGE, MAPS]
    place = len(arguments) - arguments[::-1].index(MERGE)
    return [*arguments[:place], MAPS, *arguments[place:]]
