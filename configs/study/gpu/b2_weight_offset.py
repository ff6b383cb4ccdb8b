"""Weight offset only."""
_base_ = './a5_contextual.py'

model = dict(backbone=dict(offsets=('weight', )))
