"""The study's size for two CPU cores: 50 classes of 32×32 pixels, a quarter of ResNet50's width."""
image_size = 32
num_classes = 50
considered = (25, 10, 5)
width = 16
strides = (2, 2, 2, 2)
embed_dims = 128
batch_size = 64
max_iters = 500
val_interval = 125
lr = 6e-3
precision = dict()
cudnn_benchmark = False
