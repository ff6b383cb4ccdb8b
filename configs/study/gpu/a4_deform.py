"""DCNv2's sampling offsets and masks, of the predictor that a3 has; the ordinary head."""
_base_ = './a3_no_prior.py'

model = dict(backbone=dict(preset='released', offsets=('sampling', )))
