"""What mmpretrain's `vis_cam` has to be told of a contextual network.

Left alone it takes the last norm of the backbone, which here belongs to the contextualizing layers
and sees no map; and the map of a class that the network has dropped is empty, as its score is 0.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config, DictAction

from mmctx.errors import UserError

from .config import load_config
from .running import build_model


def prepare_vis_cam(arguments: Sequence[str]) -> list[str]:
    """Add the layer that a contextual network's map is of, and check the classes asked for.

    Args:
        arguments (Sequence[str]): Arguments of `vis_cam`.

    Returns:
        list[str]: The same with `--target-layers`, unless that is among them.

    Raises:
        UserError: The network considers a class no longer for this image.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for name in ('img', 'config', 'checkpoint'):
        parser.add_argument(name, nargs='?')
    parser.add_argument('--target-layers', nargs='+')
    parser.add_argument('--target-category', nargs='+', type=int, default=[])
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args, _ = parser.parse_known_args(arguments)
    if args.checkpoint is None:
        return list(arguments)
    cfg = load_config(args.config, args.cfg_options)
    layer = last_block(cfg)
    if layer is None:
        return list(arguments)
    check_considered(cfg, args.checkpoint, args.img, args.target_category)
    return [*arguments, *([] if args.target_layers else ['--target-layers', layer])]


def last_block(cfg: Config) -> str | None:
    """Name of the last residual block of a config's contextual backbone; None of another."""
    from mmctx.models.backbones.contextual_backbone import ContextualBackbone

    model = build_model(cfg)
    if not isinstance(model.backbone, ContextualBackbone):
        return None
    *_, last = model.backbone.blocks_of(4)
    return next(name for name, module in model.named_modules() if module is last)


def check_considered(cfg: Config, checkpoint: str, image: str, classes: Sequence[int]) -> None:
    """Refuse classes that the network drops before its last stage.

    Args:
        cfg (Config): The config of the classifier.
        checkpoint (str): Its weights.
        image (str): The image.
        classes (Sequence[int]): Classes whose maps are asked for.

    Raises:
        UserError: One of them is not among the last considered classes of the image.
    """
    if not classes:
        return
    from mmpretrain import ImageClassificationInferencer

    inferencer = ImageClassificationInferencer(cfg, pretrained=checkpoint, device='cpu')
    (result,) = inferencer(image)
    scores = result['pred_scores']
    for label in classes:
        if not 0 <= label < len(scores):
            raise UserError(f'--target-category {label}: there are {len(scores)} classes')
        if scores[label] == 0:
            raise UserError(
                f'--target-category {label}: the network no longer considers this class when its '
                f'last stage classifies {image}, so that its map would be empty; the '
                f'{(scores > 0).sum()} that remain have a score above 0'
            )
