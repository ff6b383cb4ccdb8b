"""Whether the head of a network takes what its contextual backbone returns."""

import torch.nn as nn

from mmctx.errors import UserError
from mmctx.models.backbones.contextual_backbone import ContextualBackbone
from mmctx.models.heads import ContextualClsHead
from mmctx.models.unwrapping import bare_model

FRAMEWORKS = ('mmpretrain', 'mmdet', 'mmaction')
HEADS = ('head', 'cls_head', 'bbox_head', 'rpn_head', 'roi_head')


def check_heads(model: nn.Module) -> None:
    """Compare each contextual backbone in a model with the neck and the heads beside it.

    Args:
        model (nn.Module): The model; the student and the teacher inside one are checked too.

    Raises:
        UserError: Layers of a framework that take features would get logits, or a head that takes
            logits would get features.
    """
    for name, network in bare_model(model).named_modules():
        backbone = getattr(network, 'backbone', None)
        if not isinstance(backbone, ContextualBackbone):
            continue
        owner = f'model.{name}' if name else 'model'
        parts = {part: getattr(network, part, None) for part in ('neck', *HEADS)}
        for part, module in parts.items():
            taken = f'{owner}.{part} is a {type(module).__name__}, which takes'
            if isinstance(module, ContextualClsHead):
                if backbone.out_type == 'featmap':
                    raise UserError(
                        f"{taken} logits: set {owner}.backbone.out_type='logits' to have them"
                    )
            elif backbone.out_type == 'logits' and takes_features(module):
                without = f'{owner}.neck=None' if part == 'neck' else 'mmctx.ContextualClsHead'
                raise UserError(
                    f"{taken} features, and {owner}.backbone has out_type='logits': take {without} "
                    "to classify by the class embeddings, or out_type='featmap' to keep this "
                    f'{type(module).__name__}'
                )


def takes_features(module: nn.Module | None) -> bool:
    """Whether a neck or head is a framework's and has layers for features.

    One without parameters, such as `ClsHead`, takes the logits of the last stage for scores. A
    user's own head may learn from them.
    """
    if module is None or type(module).__module__.partition('.')[0] not in FRAMEWORKS:
        return False
    is_pooling = 'Pooling' in type(module).__name__
    return is_pooling or next(module.parameters(), None) is not None
