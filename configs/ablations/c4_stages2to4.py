"""Table 6, c4: Contextual ResNet50, stages 2 to 4 are contextual."""
_base_ = '../ctx_resnet50_in1k.py'
