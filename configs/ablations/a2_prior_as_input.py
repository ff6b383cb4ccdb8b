"""Table 4, a2: the prior is only an extra input of convolutions, expanded and concatenated."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(prior='input'))
