"""Table 1: Swin-T."""
_base_ = ['mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', './_base_/imagenet.py']
custom_imports = dict(imports=['mmctx'], allow_failed_imports=False)

train_dataloader = dict(dataset=_base_.imagenet)
val_dataloader = dict(dataset=_base_.imagenet)
test_dataloader = val_dataloader
