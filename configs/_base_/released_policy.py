"""Optimizer and schedule of the authors' release for training from vanilla weights, at batch 256."""
released_epochs = 200
released_optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.01),
    paramwise_cfg=dict(vanilla_lr_mult=0.1, context_decay_mult=10.0))
released_param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=20,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-7, by_epoch=True, begin=20, end=released_epochs),
]
