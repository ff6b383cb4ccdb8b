"""Half as many classes again kept after each stage."""
_base_ = './a5_contextual.py'

considered = [3 * kept // 2 for kept in _base_.considered]
model = dict(backbone=dict(considered=considered))
val_evaluator = [
    _base_.contextual_evaluator[0],
    dict(type='mmctx.StageRecall', considered=considered),
]
test_evaluator = val_evaluator
