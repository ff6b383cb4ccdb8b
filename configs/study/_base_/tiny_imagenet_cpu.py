"""The study's recipe on Tiny-ImageNet for two CPU cores, the same for all rows.

50 classes of 32×32 pixels, a quarter of ResNet50's width. The set is beneath TINY_IMAGENET_ROOT, else data/tiny_imagenet/; decoded, it goes to data/packed/.
"""
_base_ = ['mmpretrain::_base_/default_runtime.py', '../../_base_/contextual_cls.py']
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

image_size = 32
num_classes = 50
considered = (25, 10, 5)
width = 16
strides = (2, 2, 2, 2)
embed_dims = 128
batch_size = 64
max_iters = 500
val_interval = 125
lr = 6e-3
precision = dict()
cudnn_benchmark = False

tiny_imagenet = dict(
    type='mmctx.PackedTinyImageNet',
    data_root='{{$TINY_IMAGENET_ROOT:data/tiny_imagenet/}}'.rstrip('/') + '/',
    cache='data/packed',
    image_size=image_size,
    num_classes=num_classes)
loader = dict(num_workers=0, pin_memory=False)
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(split='train', **tiny_imagenet),
    # Endless, because mmengine waits some seconds between two passes over the data.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    **loader)
val_dataloader = dict(
    batch_size=200,
    dataset=dict(split='val', **tiny_imagenet),
    sampler=dict(type='DefaultSampler', shuffle=False),
    **loader)
test_dataloader = val_dataloader
val_evaluator = [dict(type='Accuracy', topk=(1, 5))]
test_evaluator = val_evaluator
data_preprocessor = dict(
    type='mmctx.CropPreprocessor',
    padding=image_size // 8,
    num_classes=num_classes,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)

resnet = dict(
    depth=50,
    strides=strides,
    stem_channels=width,
    base_channels=width)
contextual = dict(
    type='mmctx.ContextualResNet_CIFAR',
    num_classes=num_classes,
    considered=considered,
    embed_dims=embed_dims,
    **resnet)
# For rows with class embeddings.
contextual_classifier = dict(
    _delete_=True,
    type='ImageClassifier',
    backbone=dict(out_type='logits', **contextual),
    head=dict(type='mmctx.ContextualClsHead'))
contextual_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='mmctx.StageRecall', considered=considered),
]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', **resnet),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=num_classes, in_channels=32 * width))

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05),
    **precision,
    **_base_.contextual_groups)
warm_up = max_iters // 8
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=warm_up),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=warm_up,
         end=max_iters),
]
train_cfg = dict(by_epoch=False, max_iters=max_iters, val_interval=val_interval)
env_cfg = dict(cudnn_benchmark=cudnn_benchmark)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    logger=dict(interval=25, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=val_interval, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
