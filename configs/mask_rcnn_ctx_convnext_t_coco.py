"""Table 3: Mask R-CNN, Contextual ConvNeXt-T, 3x; the vanilla row's recipe with another backbone,
no decay of whose class embeddings.

Other ImageNet weights: --cfg-options pretrained=FILE. From scratch: --cfg-options pretrained=None
On small classifiers Contextual ConvNeXt ended level with ConvNeXt (docs/what_helps.md).
"""
_base_ = './mask_rcnn_convnext_t_coco.py'

pretrained = 'checkpoints/ctx_convnext_t_in1k.pth'
pretrained_hint = (
    'Train Contextual ConvNeXt-T on ImageNet-1K and put its weights there, or name a file with '
    '--cfg-options pretrained=FILE (vanilla ConvNeXt-T weights load too: '
    f'pretrained={_base_.checkpoint_file})'
)
model = dict(
    backbone=dict(
        type='mmctx.ContextualConvNeXt',
        arch='tiny',
        preset='paper',
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=pretrained),
    )
)
optim_wrapper = dict(
    constructor='mmctx.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.95, flat_decay_mult=0.0),
)
