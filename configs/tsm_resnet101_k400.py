"""Table 2: TSM, ResNet101, 16 frames; ResNet50's recipe.

Without its ImageNet weights: --cfg-options pretrained=None
"""
_base_ = './tsm_resnet50_k400.py'

model = dict(backbone=dict(depth=101, pretrained='torchvision://resnet101'))
