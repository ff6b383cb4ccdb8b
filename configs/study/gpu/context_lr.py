"""The parameters that a contextual network adds learn at a third of the rate."""
_base_ = './rerank.py'

optim_wrapper = dict(paramwise_cfg=dict(context_lr_mult=0.3))
