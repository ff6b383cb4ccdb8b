"""Table 5, b3: sampling offset only."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(offsets=('sampling', )))
