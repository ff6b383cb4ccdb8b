"""LayerNorm instead of BatchNorm in the predictors and in classifying."""
_base_ = './a5_contextual.py'

model = dict(backbone=dict(norm='LN'))
