"""ImageNet-1K beneath the environment variable IMAGENET_ROOT, else data/imagenet/.

A broken image ends the run with its name; `skip_broken=True` has training take another one.
"""
imagenet_root = '{{$IMAGENET_ROOT:data/imagenet/}}'.rstrip('/') + '/'
imagenet = dict(type='mmctx.ImageNet', data_root=imagenet_root)
