"""The demo: a small contextual Mask R-CNN that learns rendered shapes on two CPU cores in minutes.

Render the set first: python tools/dataset_converters/render_shapes.py data/shapes
"""
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py', '_base_/shapes_instance.py',
    'mmdet::_base_/default_runtime.py'
]

custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

max_epochs = 3
randomness = dict(seed=0)
channels = [32, 64, 128, 192]
width = 64
strides = [4, 8, 16, 32]
num_classes = 8
norm_cfg = dict(type='GN', num_groups=8)
# Objects this small need only the finest map and one sample for each bin, which is several times
# less work.
roi_extractor = dict(
    roi_layer=dict(sampling_ratio=1), out_channels=width, featmap_strides=strides[:1])

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmctx.ContextualConvNeXt',
        arch=dict(depths=[2, 2, 4, 2], channels=channels),
        num_classes=64,
        considered=(32, 16, 8),
        embed_dims=64,
        out_indices=[0, 1, 2, 3],
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        # PyTorch's own: its random biases keep LayerNorm away from the all-zero pixels of padding,
        # where gradients would explode, and with its larger weights few iterations are enough.
        init_cfg=None),
    neck=dict(in_channels=channels, out_channels=width, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[6], strides=strides),
        init_cfg=dict(type='Xavier', layer='Conv2d')),
    roi_head=dict(
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=num_classes),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
            norm_cfg=norm_cfg)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=48, pos_fraction=0.33))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=20)))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True)
]

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=1))
