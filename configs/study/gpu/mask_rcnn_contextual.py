"""Mask R-CNN with a small Contextual ConvNeXt on rendered shapes, three times as long."""
_base_ = '../cpu/mask_rcnn_contextual.py'

max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs),
]
