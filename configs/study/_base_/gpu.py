"""The study's size for one GPU: 200 classes of 64×64 pixels, ResNet50's width, mixed precision."""
image_size = 64
num_classes = 200
considered = (100, 40, 10)
width = 64
strides = (2, 2, 2, 2)
embed_dims = 256
batch_size = 256
max_iters = 600
val_interval = 200
lr = 2e-3
precision = dict(type='AmpOptimWrapper', loss_scale='dynamic')
cudnn_benchmark = True
