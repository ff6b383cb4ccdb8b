"""The prior is only an extra input of convolutions; every stage scores all classes."""
_base_ = './rerank.py'

model = dict(backbone=dict(prior='input'))
