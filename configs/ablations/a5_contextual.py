"""Table 4, a5: Contextual ResNet50."""
_base_ = '../ctx_resnet50_in1k.py'
