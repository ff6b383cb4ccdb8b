"""Table 6, c1: ResNet50, no contextual stage."""
_base_ = '../resnet50_in1k.py'
