"""Vanilla ResNet50, small."""
_base_ = '../_base_/tiny_imagenet_cpu.py'
