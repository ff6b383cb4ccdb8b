"""Table 6, c3: stages 3 and 4 are contextual; stages 2 to 4 classify."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(
    backbone=dict(contextual_stages=(3, 4)),
    head=dict(loss=dict(type='mmctx.StagewiseCrossEntropy', stage_weights=(0.15, 0.15, 1.0))))
