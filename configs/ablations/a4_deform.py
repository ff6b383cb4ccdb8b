"""Table 4, a4: DCNv2 in the place of the contextual convolutions; the ordinary head.

Predictors half as wide as theirs come closest to the printed size.
"""
_base_ = ['../resnet50_in1k.py', '../_base_/contextual_cls.py']

model = dict(
    backbone=dict(
        type='mmctx.ContextualResNet',
        preset='released',
        prior='none',
        offsets=('sampling', ),
        reduction=8))
optim_wrapper = _base_.contextual_groups
