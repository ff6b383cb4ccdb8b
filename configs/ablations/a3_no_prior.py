"""Table 4, a3: contextual convolutions that see features alone; the ordinary head."""
_base_ = ['../resnet50_in1k.py', '../_base_/contextual_cls.py']

model = dict(backbone=dict(type='mmctx.ContextualResNet', prior='none'))
optim_wrapper = _base_.contextual_groups
