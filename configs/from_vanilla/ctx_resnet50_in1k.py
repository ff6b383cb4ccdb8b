"""Contextual ResNet50 from the weights of a vanilla one, by the policy of the authors' release.

What is new learns at the full rate and with ten times the weight decay, what was pretrained at a
tenth of the rate. Other weights: --cfg-options pretrained=FILE

On small networks a start from vanilla weights ended level with the vanilla network, a start from
scratch behind it (docs/what_helps.md); this policy itself has not been tried there.
"""
_base_ = ['../ctx_resnet50_in1k.py', '../_base_/released_policy.py']

pretrained = 'https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'
model = dict(
    backbone=dict(
        selection='rerank',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    head=dict(loss=dict(type='mmctx.StagewiseCrossEntropy', label_smoothing=0.1)))
optim_wrapper = _base_.released_optim_wrapper
param_scheduler = _base_.released_param_scheduler
train_cfg = dict(max_epochs=_base_.released_epochs)
