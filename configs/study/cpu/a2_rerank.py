"""a2 where every stage scores all classes; only the prior narrows."""
_base_ = './a2_prior_as_input.py'

model = dict(backbone=dict(selection='rerank'))
