"""Table 2: TSM, Contextual ResNet50, 16 frames; the vanilla row's recipe with another backbone.

The 1000 classes of ImageNet stay the considered ones, and each frame has a prior of its own;
--cfg-options model.backbone.average_prior=True gives all frames of a clip their mean.
Other ImageNet weights: --cfg-options pretrained=FILE. From scratch: --cfg-options pretrained=None
"""
_base_ = './tsm_resnet50_k400.py'

pretrained = 'checkpoints/ctx_resnet50_in1k.pth'
pretrained_hint = (
    'Train Contextual ResNet50 on ImageNet-1K (configs/ctx_resnet50_in1k.py) and put its weights '
    'there, or name a file with --cfg-options pretrained=FILE (vanilla ResNet50 weights load too: '
    f'pretrained={_base_.model.backbone.pretrained})'
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmctx.ContextualResNetTSM',
        depth=50,
        preset='paper',
        num_segments=16,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    )
)
# TSM's rules apply to the new layers too. In a training from vanilla weights, context_lr_mult and
# context_decay_mult of paramwise_cfg set the rates of the new parameters. On small classifiers the
# predictors learnt best at the rate of the pretrained ones, and contextual convolutions gained as
# much without a prior (docs/what_helps.md).
optim_wrapper = dict(constructor='mmctx.TSMOptimWrapperConstructor')
