"""Table 1: RegNetY-4G, torchvision's network with the recipe of the Swin rows."""
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    './_base_/imagenet.py',
]
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmctx.TorchvisionRegNetY', arch='4gf'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1088,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))

train_dataloader = dict(dataset=_base_.imagenet)
val_dataloader = dict(dataset=_base_.imagenet)
test_dataloader = val_dataloader
