"""Table 3: Mask R-CNN, Swin-T, 3x. Without its ImageNet weights: --cfg-options pretrained=None"""
_base_ = [
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    './_base_/coco.py',
]
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.coco_dataset)
val_dataloader = dict(dataset=_base_.coco_dataset)
test_dataloader = val_dataloader
val_evaluator = _base_.coco_evaluator
test_evaluator = val_evaluator
