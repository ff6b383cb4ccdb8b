"""ResNet50 with contextual convolutions in every block, without a prior, from vanilla weights.

On small networks nothing has gained more: 0.9 ± 0.2 points over ResNet50 with the same further
training (docs/what_helps.md, row a3-stages). As there, new and pretrained parameters learn at one
rate, and the classifier is pretrained too. Nobody has trained it on ImageNet.
Other weights: --cfg-options load_from=FILE
"""
_base_ = ['../ablations/a3_no_prior.py', '../_base_/released_policy.py']

load_from = 'https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'
model = dict(
    backbone=dict(every=1, contextual_stages=(1, 2, 3, 4)),
    head=dict(
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original', _delete_=True)))
optim_wrapper = dict(optimizer=_base_.released_optim_wrapper.optimizer)
param_scheduler = _base_.released_param_scheduler
train_cfg = dict(max_epochs=_base_.released_epochs)
