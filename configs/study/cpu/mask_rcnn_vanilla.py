"""Mask R-CNN with a small vanilla ConvNeXt on rendered shapes, the contextual row's recipe."""
_base_ = './mask_rcnn_contextual.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch=_base_.model.backbone.arch,
        out_indices=[0, 1, 2, 3],
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        init_cfg=None))
