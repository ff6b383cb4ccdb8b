"""Table 4, a1: ResNet50."""
_base_ = '../resnet50_in1k.py'
