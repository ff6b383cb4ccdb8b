"""Table 5, b2: weight offset only."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(offsets=('weight', )))
