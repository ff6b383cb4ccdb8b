"""A small Contextual ResNet that learns 40 classes of coloured shapes on a CPU in minutes.

Render them first: python tools/dataset_converters/render_coloured_shapes.py data/coloured_shapes
"""
_base_ = './ctx_resnet_tiny_imagenet.py'

data_root = '{{$COLOURED_SHAPES_ROOT:data/coloured_shapes/}}'.rstrip('/') + '/'
max_iters = 600
considered = (20, 8, 3)

model = dict(
    backbone=dict(
        num_classes=40,
        considered=considered,
        embed_dims=64,
        stem_channels=24,
        base_channels=24))
data_preprocessor = dict(num_classes=40)

dataset = dict(_delete_=True, type='CustomDataset', data_root=data_root)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(data_prefix='train', pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    dataset=dict(data_prefix='val', pipeline=_base_.test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='Accuracy', topk=1),
    dict(type='mmctx.StageRecall', considered=considered),
]
test_evaluator = val_evaluator

train_cfg = dict(max_iters=max_iters)
# Deformable networks need a low rate for their offsets.
optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=dict(predictor_lr_mult=0.1))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]
# Without it the last stage would hardly learn: the first ones drop most true classes at the start.
custom_hooks = [
    dict(type='mmctx.CascadeWarmUpHook', share=0.5, way='narrow'),
    dict(type='mmctx.ContextLogHook'),
]
