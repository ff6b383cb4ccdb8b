"""Table 6, c2: stage 4 is contextual; stages 3 and 4 classify."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(
    backbone=dict(contextual_stages=(4, )),
    head=dict(loss=dict(type='mmctx.StagewiseCrossEntropy', stage_weights=(0.15, 1.0))))
