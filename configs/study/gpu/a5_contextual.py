"""Contextual ResNet50, small."""
_base_ = '../_base_/tiny_imagenet_gpu.py'

model = _base_.contextual_classifier
val_evaluator = _base_.contextual_evaluator
test_evaluator = val_evaluator
