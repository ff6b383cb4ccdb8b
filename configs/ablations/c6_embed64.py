"""Table 6, c6: class embeddings of width 64."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(embed_dims=64))
