"""Table 1: Contextual ConvNeXt-B."""
_base_ = './ctx_convnext_t_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5))
