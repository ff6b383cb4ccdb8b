"""Mask R-CNN, Contextual ConvNeXt-T, learning a handful of COCO images by heart on a CPU."""

_base_ = '../../configs/mask_rcnn_ctx_convnext_t_coco.py'

pretrained = None
iterations = 240
scale = (320, 320)
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    # All images of one size: no padding, whose constant pixels upset a LayerNorm that is new.
    dict(type='Resize', scale=scale, keep_ratio=False),
]

model = dict(
    backbone=dict(drop_path_rate=0.0),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(pipeline=load + [dict(type='PackDetInputs')]),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        pipeline=load
        + [
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            )
        ]
    ),
)
test_dataloader = val_dataloader

train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations
)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=0.0),
    paramwise_cfg=dict(layer_decay_rate=1.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=False,
        begin=20,
        end=iterations,
        T_max=iterations - 20,
    ),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=iterations, max_keep_ckpts=1)
)
log_processor = dict(by_epoch=False)
