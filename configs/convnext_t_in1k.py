"""Table 1: ConvNeXt-T."""
_base_ = ['mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', './_base_/imagenet.py']
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.imagenet)
val_dataloader = dict(dataset=_base_.imagenet)
test_dataloader = val_dataloader
