"""Arguments that mmpretrain's `vis_cam` needs for a contextual network.

By default `vis_cam` takes the last norm of the backbone, which in a contextual network belongs to
the contextualizing layers and gets no feature map. The map of a class that the network has dropped
is empty, because its score is 0.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config, DictAction

from mmctx.errors import UserError

from .config import load_config
from .running import build_model


def prepare_vis_cam(arguments: Sequence[str]) -> list[str]:
    """Add the target layer of a contextual network, and check the target classes.

    Args:
        arguments (Sequence[str]): Arguments of `vis_cam`.

    Returns:
        list[str]: Arguments with `--target-layers` added, unless it was given.

    Raises:
        UserError: The network has dropped a target class for this image.
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
    """Name of the last residual block of a config's backbone; None if it is not contextual."""
    from mmctx.models.backbones.contextual_backbone import ContextualBackbone

    model = build_model(cfg)
    if not isinstance(getattr(model, 'backbone', None), ContextualBackbone):
        return None
    *_, last = model.backbone.blocks_of(4)
    return next(name for name, module in model.named_modules() if module is last)


def check_considered(cfg: Config, checkpoint: str, image: str, classes: Sequence[int]) -> None:
    """Refuse target classes that the network drops before its last stage.

    Args:
        cfg (Config): Config of the classifier.
        checkpoint (str): Checkpoint of the classifier.
        image (str): Path of the image.
        classes (Sequence[int]): Target classes.

    Raises:
        UserError: A target class is not among the classes that the last stage considers.
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
