"""Table 2: TSM, ResNet50, 16 frames; mmaction2's recipe.

Without its ImageNet weights: --cfg-options pretrained=None
"""
_base_ = './_base_/kinetics400.py'
