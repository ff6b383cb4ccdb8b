"""Table 3: Mask R-CNN, ConvNeXt-T, 3x. Without its ImageNet weights: --cfg-options pretrained=None"""
_base_ = [
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    './_base_/coco.py',
]
custom_imports = dict(imports=['mmctx', 'mmpretrain.models'], allow_failed_imports=False)

pretrained = _base_.checkpoint_file
model = dict(backbone=dict(init_cfg=dict(checkpoint=pretrained)))

train_dataloader = dict(dataset=_base_.coco_dataset)
val_dataloader = dict(dataset=_base_.coco_dataset)
test_dataloader = val_dataloader
val_evaluator = _base_.coco_evaluator
test_evaluator = val_evaluator
