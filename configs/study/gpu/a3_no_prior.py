"""Contextual convolutions that see features alone; the ordinary head."""
_base_ = '../_base_/tiny_imagenet_gpu.py'

model = dict(backbone=dict(_delete_=True, prior='none', **_base_.contextual))
