"""TSM with Contextual ResNet50 learning nine clips by heart, by action, on a CPU."""

_base_ = '../../configs/tsm_ctx_resnet50_k400.py'

pretrained = None
epochs = 40
num_classes = 4
num_segments = 8
load = [
    dict(type='mmctx.PyAVDecode'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs'),
]
frames = dict(type='SampleFrames', clip_len=1, num_clips=num_segments)
train_pipeline = [dict(type='mmctx.PyAVInit'), frames, *load]
val_pipeline = [dict(type='mmctx.PyAVInit'), dict(frames, test_mode=True), *load]

model = dict(
    backbone=dict(num_segments=num_segments),
    cls_head=dict(num_classes=num_classes, num_segments=num_segments, dropout_ratio=0.0),
)
train_dataloader = dict(
    batch_size=9,
    num_workers=1,
    dataset=dict(num_classes=num_classes, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=3,
    num_workers=1,
    dataset=dict(num_classes=num_classes, pipeline=val_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(metric_options=dict(top_k_accuracy=dict(topk=(1, 2))))
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=epochs, val_begin=epochs, val_interval=epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=5),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=5, end=epochs, T_max=epochs - 5),
]
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=epochs, max_keep_ckpts=1))
