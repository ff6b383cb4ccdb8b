"""Checkpoints of the authors' released code."""

import re
from collections.abc import Mapping

from torch import Tensor

from mmctx.errors import UserError

_MERGER_STEPS = {'in': 'each', 'out': 'joint'}
_CONVNEXT_BLOCK = r'^(stages\.\d+\.\d+)'
_RESNET_CONV = r'^(layer\d+\.\d+\.conv2)'
_RULES = (
    (rf'{_CONVNEXT_BLOCK}\.dwconv\.', r'\1.depthwise_conv.'),
    (rf'{_CONVNEXT_BLOCK}\.pwconv([12])\.', r'\1.pointwise_conv\2.'),
    (rf'({_CONVNEXT_BLOCK}\.depthwise_conv|{_RESNET_CONV})\.conv\.', r'\1.'),
    (r'\.spatial_offset_layer\.', '.sampling_offset_predictor.'),
    (r'\.weight_offset_layer\.', '.weight_offset_predictor.'),
    (r'^cls\.class_token_embedding\.', 'contextualizing.embeddings.'),
    (r'^cls\.logit_scale$', 'contextualizing.logit_scale'),
    (r'^cls\.visual_proj_heads\.(\d+)\.nonlinear\.', r'contextualizing.classifying.\1.'),
    (
        # The released mergers are numbered by the stage that takes their prior, mmctx's merging
        # layers by the stage that they follow.
        r'^cls\.class_mergers\.(\d+)\.(in|out)_nonlinear\.',
        lambda m: f'contextualizing.merging.{int(m[1]) - 1}.{_MERGER_STEPS[m[2]]}.',
    ),
)
_LANDMARKS = (r'stages\.\d+\.\d+\.dwconv\.conv\.weight', r'layer\d+\.\d+\.conv2\.conv\.weight')
_ORDINARY_HEAD = ('fc.', 'head.', 'norm.')


def convert_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a released network's state for a classifier made by `build_classifier`.

    The ordinary classifier that some states hold beside the class embeddings is left out, because
    nothing uses it.

    Args:
        state (Mapping[str, Tensor]): State, or gradients by name, of the released Contextual
            ConvNeXt or ResNet.

    Returns:
        dict[str, Tensor]: The same tensors under mmctx's names, each beginning with `backbone.`.

    Raises:
        UserError: The state belongs to another network.
    """
    contextual = any(name.startswith('cls.class_token_embedding.') for name in state)
    if not contextual or not any(re.fullmatch('|'.join(_LANDMARKS), name) for name in state):
        raise UserError(
            'not a state of the released Contextual ConvNeXt or ResNet: it lacks '
            "'cls.class_token_embedding.weight' or the convolutions 'stages.*.dwconv.conv.weight' "
            f"or 'layer*.conv2.conv.weight' (its first name is {next(iter(state), None)!r})"
        )
    return {
        f'backbone.{_rename(name)}': value
        for name, value in state.items()
        if not name.startswith(_ORDINARY_HEAD)
    }


def _rename(name: str) -> str:
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name
