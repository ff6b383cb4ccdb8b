"""Mask R-CNN with a small Contextual ConvNeXt on rendered shapes, from scratch."""
_base_ = '../../mask_rcnn_ctx_convnext_shapes.py'

max_epochs = 2
loader = dict(num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs),
]
