"""LayerNorm instead of BatchNorm in the predictors and in classifying."""
_base_ = './rerank.py'

model = dict(backbone=dict(norm='LN'))
