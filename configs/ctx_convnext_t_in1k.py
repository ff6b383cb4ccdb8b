"""Table 1: Contextual ConvNeXt-T; ConvNeXt's recipe with another learning rate."""
_base_ = ['./convnext_t_in1k.py', './_base_/contextual_cls.py']

model = dict(
    backbone=dict(type='mmctx.ContextualConvNeXt', out_type='logits'),
    head=dict(
        loss=dict(type='mmctx.StagewiseCrossEntropy', label_smoothing=0.1),
        **_base_.contextual_head))
# For a batch of 4096; --auto-scale-lr adapts it to other batches.
optim_wrapper = dict(optimizer=dict(lr=1e-3), **_base_.contextual_groups)
val_evaluator = _base_.contextual_evaluator
test_evaluator = val_evaluator
