"""Contextual ResNet50 of Tables 2 and 4-6 (rows a5, b4, c4); ResNet50's recipe, 100 epochs of SGD."""
_base_ = ['./resnet50_in1k.py', './_base_/contextual_cls.py']

model = dict(
    backbone=dict(type='mmctx.ContextualResNet', out_type='logits'),
    neck=None,
    head=_base_.contextual_head)
optim_wrapper = _base_.contextual_groups
val_evaluator = _base_.contextual_evaluator
test_evaluator = val_evaluator
