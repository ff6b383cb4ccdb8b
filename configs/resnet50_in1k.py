"""ResNet50, the vanilla network of Tables 2 and 4-6 (rows a1, b1, c1)."""
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', './_base_/imagenet.py']
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.imagenet)
val_dataloader = dict(dataset=_base_.imagenet)
test_dataloader = val_dataloader
