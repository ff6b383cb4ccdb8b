"""Head, evaluation and parameter groups of the contextual classifiers."""
# The backbone holds τ and the class embeddings, so the head has no parameters.
contextual_head = dict(_delete_=True, type='mmctx.ContextualClsHead')
contextual_evaluator = [
    dict(type='Accuracy', topk=(1, 5)),
    dict(type='mmctx.StageRecall', considered=(500, 200, 50)),
]
# Norms, biases, τ and the class embeddings have no weight decay. In a training from vanilla weights
# (--cfg-options pretrained=FILE), the two factors set the rates of the new parameters. On small
# networks predictors learnt best at the rate of the pretrained parameters; class embeddings and the
# layers around them take the full one (docs/what_helps.md).
contextual_groups = dict(
    constructor='mmctx.ContextualOptimWrapperConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            'contextualizing.embeddings': dict(decay_mult=0.0),
            'contextualizing.logit_scale': dict(decay_mult=0.0),
        },
        context_lr_mult=1.0,
        context_decay_mult=1.0))
