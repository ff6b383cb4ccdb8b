"""The recipe for one GPU: 200 classes of 64×64 pixels, ResNet50's width, mixed precision."""
_base_ = './tiny_imagenet_cpu.py'

image_size = 64
num_classes = 200
considered = (100, 40, 10)
width = 64
embed_dims = 256
batch_size = 256
max_iters = 600
val_interval = 200
lr = 2e-3
precision = dict(type='AmpOptimWrapper', loss_scale='dynamic')
cudnn_benchmark = True

tiny_imagenet = dict(image_size=image_size, num_classes=num_classes)
train_dataloader = dict(batch_size=batch_size, dataset=tiny_imagenet)
val_dataloader = dict(dataset=tiny_imagenet)
test_dataloader = val_dataloader
data_preprocessor = dict(padding=image_size // 8, num_classes=num_classes)

resnet = dict(stem_channels=width, base_channels=width)
contextual = dict(
    num_classes=num_classes, considered=considered, embed_dims=embed_dims, **resnet)
contextual_classifier = dict(backbone=contextual)
contextual_evaluator = [
    _base_.contextual_evaluator[0],
    dict(type='mmctx.StageRecall', considered=considered),
]
model = dict(backbone=resnet, head=dict(num_classes=num_classes, in_channels=32 * width))

optim_wrapper = dict(optimizer=dict(lr=lr), **precision)
warm_up = max_iters // 8
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warm_up),
    dict(_base_.param_scheduler[1], begin=warm_up, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
env_cfg = dict(cudnn_benchmark=cudnn_benchmark)
default_hooks = dict(checkpoint=dict(interval=val_interval))
