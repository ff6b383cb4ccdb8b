"""Every stage scores all classes; only the prior narrows."""
_base_ = './a5_contextual.py'

model = dict(backbone=dict(selection='rerank'))
