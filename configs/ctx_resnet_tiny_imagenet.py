"""A small Contextual ResNet that learns Tiny-ImageNet on two CPU cores.

The data, in folders or in zip archives, is beneath the environment variable TINY_IMAGENET_ROOT,
else data/tiny_imagenet/.
"""
_base_ = ['mmpretrain::_base_/default_runtime.py', './_base_/contextual_cls.py']
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

tiny_imagenet_root = '{{$TINY_IMAGENET_ROOT:data/tiny_imagenet/}}'.rstrip('/') + '/'
max_iters = 600
considered = (100, 40, 10)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmctx.ContextualResNet',
        depth=18,
        num_classes=200,
        considered=considered,
        embed_dims=128,
        out_type='logits',
        stem_channels=48,
        base_channels=48),
    head=dict(type='mmctx.ContextualClsHead'))
data_preprocessor = dict(
    num_classes=200, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.4, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        type='mmctx.TinyImageNet',
        data_root=tiny_imagenet_root,
        split='train',
        pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    dataset=dict(
        type='mmctx.TinyImageNet', data_root=tiny_imagenet_root, split='val',
        pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='mmctx.StageRecall', considered=considered),
]
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=300)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05), **_base_.contextual_groups)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=300, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
