"""Table 6, c5: all stages are contextual; the prior of stage 1 is all classes merged."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(contextual_stages=(1, 2, 3, 4)))
