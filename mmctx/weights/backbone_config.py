"""Config of the backbone that fits a converted state."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from mmctx.errors import UserError
from mmctx.models.layers.contextualizing import usually_considered

# Depths and channels of the stages.
CONVNEXTS = {
    'tiny': ((3, 3, 9, 3), (96, 192, 384, 768)),
    'small': ((3, 3, 27, 3), (96, 192, 384, 768)),
    'base': ((3, 3, 27, 3), (128, 256, 512, 1024)),
}
# Blocks of each stage, and whether they are bottlenecks.
RESNETS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


def backbone_config(state: Mapping[str, Tensor], considered: Sequence[int] | None = None) -> dict:
    """Config of the contextual backbone that a converted state fits.

    Args:
        state (Mapping[str, Tensor]): State made by `convert_released` or `convert_vanilla`.
        considered (Sequence[int], optional): Numbers of classes kept after stages 1, 2, 3, which a
            state does not hold. Defaults to None: a half, a fifth and a twentieth of all classes,
            as in the paper.

    Returns:
        dict: Config for `build_classifier` or a config file; for a vanilla network just its type
        and size.

    Raises:
        UserError: No contextual backbone has this size.
    """
    state = {name.removeprefix('backbone.'): value for name, value in state.items()}
    convnext = 'stages.0.0.depthwise_conv.weight' in state
    if convnext:
        config, depths, every = _convnext_config(state)
    else:
        config, depths, every = _resnet_config(state)
    embeddings = state.get('contextualizing.embeddings.weight')
    if embeddings is None:
        return config
    classes, embed_dims = embeddings.shape
    config |= dict(preset='released', selection='rerank', num_classes=classes)
    config['considered'] = tuple(considered or usually_considered(classes))
    if embed_dims != 256:
        config['embed_dims'] = embed_dims
    found = _contextual_interval(state, depths, every)
    if found != every:
        config['every'] = found
    return config


def _convnext_config(state):
    depths = _depths(state, r'stages\.(\d)\.(\d+)\.')
    stems = [f'stages.{stage}.0.depthwise_conv.weight' for stage in range(len(depths))]
    size = depths, tuple(len(state[name]) for name in stems if name in state)
    arch = next((name for name, known in CONVNEXTS.items() if known == size), None)
    if arch is None:
        arch = dict(depths=list(size[0]), channels=list(size[1]))
    config = dict(type='mmctx.ContextualConvNeXt', arch=arch)
    if 'stages.0.0.gamma' not in state:
        config['layer_scale_init_value'] = 0.0
    return config, depths, 3


def _resnet_config(state):
    depths = _depths(state, r'layer(\d)\.(\d+)\.')
    bottleneck = 'layer1.0.conv3.weight' in state
    depth = RESNETS.get((depths, bottleneck))
    if depth is None or not {'conv1.weight', 'layer1.0.conv1.weight'} <= state.keys():
        raise UserError(
            f'a ResNet of {depths} blocks has none of the known depths {sorted(RESNETS.values())}'
        )
    config = dict(type='mmctx.ContextualResNet', depth=depth)
    stem, base = len(state['conv1.weight']), len(state['layer1.0.conv1.weight'])
    expansion = len(state['layer1.0.conv3.weight']) // base if bottleneck else 1
    sizes = dict(stem_channels=stem, base_channels=base, expansion=expansion)
    usual = dict(stem_channels=64, base_channels=64, expansion=4 if bottleneck else 1)
    config |= {key: value for key, value in sizes.items() if value != usual[key]}
    return config, depths, 2


def _depths(state: Mapping[str, Tensor], block: str) -> tuple[int, ...]:
    """Number of blocks of each stage."""
    found = {match.groups() for name in state if (match := re.match(block, name))}
    stages = [stage for stage, _ in found]
    return tuple(stages.count(stage) for stage in sorted(set(stages)))


def _contextual_interval(state: Mapping[str, Tensor], depths: Sequence[int], usual: int) -> int:
    """The number n for which every n-th block of stages 2–4 is contextual."""
    predictor = r'(?:stages\.|layer)(\d)\.(\d+)\.\w+\.weight_offset_predictor\.0\.weight'
    matches = (re.fullmatch(predictor, name) for name in state)
    found = {(int(m[1]) - m[0].startswith('layer'), int(m[2])) for m in matches if m}
    for every in (usual, *range(1, max(depths) + 1)):
        if found == {(s, b) for s in range(1, len(depths)) for b in range(0, depths[s], every)}:
            return every
    raise UserError('its contextual blocks are not every n-th block of stages 2–4')
