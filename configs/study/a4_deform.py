"""DCNv2 in the place of the contextual convolutions; the ordinary head."""
_base_ = './a3_no_prior.py'

model = dict(backbone=dict(preset='released', bends=('grid', ), reduction=8))
