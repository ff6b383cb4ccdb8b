"""Table 1: Contextual ConvNeXt-S."""
_base_ = './ctx_convnext_t_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))
