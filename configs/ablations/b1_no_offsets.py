"""Table 5, b1: ResNet50, neither offset."""
_base_ = '../resnet50_in1k.py'
