"""The prior is only an extra input of convolutions, expanded and concatenated."""
_base_ = './a5_contextual.py'

model = dict(backbone=dict(prior='input'))
