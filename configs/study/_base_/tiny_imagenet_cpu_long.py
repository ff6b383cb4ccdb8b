"""The recipe for two CPU cores, four times as long, for a few rows."""
_base_ = './tiny_imagenet_cpu.py'

max_iters = 2000
val_interval = 250
warm_up = max_iters // 8
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(checkpoint=dict(interval=val_interval))
