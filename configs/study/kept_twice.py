"""Twice as many classes kept after each stage."""
_base_ = './a5_contextual.py'

considered = [2 * kept for kept in _base_.considered]
model = dict(backbone=dict(considered=considered))
val_evaluator = [dict(type='Accuracy', topk=(1, 5)), dict(type='mmctx.StageRecall', considered=considered)]
test_evaluator = val_evaluator
