"""Table 5, b4: Contextual ResNet50, both offsets."""
_base_ = '../ctx_resnet50_in1k.py'
