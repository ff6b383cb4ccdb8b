"""Checkpoints of the authors' released code."""

import re

from torch import Tensor

_BLOCK = r'^(stages\.\d+\.\d+)'
_MERGER_STEPS = {'in_nonlinear': 'each', 'out_nonlinear': 'joint'}
_CONVNEXT_RULES = (
    (rf'{_BLOCK}\.dwconv\.conv\.', r'\1.depthwise_conv.'),
    (rf'{_BLOCK}\.dwconv\.spatial_offset_layer\.', r'\1.depthwise_conv.offset_predictor.'),
    (rf'{_BLOCK}\.dwconv\.weight_offset_layer\.', r'\1.depthwise_conv.delta_predictor.'),
    (rf'{_BLOCK}\.pwconv([12])\.', r'\1.pointwise_conv\2.'),
)
_CLASSIFYING_RULES = (
    (r'^cls\.class_token_embedding\.', 'contextualizing.embeddings.'),
    (r'^cls\.logit_scale$', 'contextualizing.logit_scale'),
    (r'^cls\.visual_proj_heads\.(\d+)\.nonlinear\.', r'contextualizing.classifying.\1.'),
    (
        # Mergers count the stage that they serve, merging layers the one that they follow.
        r'^cls\.class_mergers\.(\d+)\.(in|out)_nonlinear\.',
        lambda m: f'contextualizing.merging.{int(m[1]) - 1}.{_MERGER_STEPS[m[2] + "_nonlinear"]}.',
    ),
)


def convert_released_convnext(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the released Contextual ConvNeXt's state for a classifier of `build_classifier`.

    Args:
        state (dict[str, Tensor]): The released network's state.

    Returns:
        dict[str, Tensor]: The same tensors under mmctx's names, each beginning with `backbone.`.
    """
    return {f'backbone.{_rename(name)}': value for name, value in state.items()}


def _rename(name: str) -> str:
    for pattern, replacement in (*_CONVNEXT_RULES, *_CLASSIFYING_RULES):
        name = re.sub(pattern, replacement, name)
    return name
