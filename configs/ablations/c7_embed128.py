"""Table 6, c7: class embeddings of width 128."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(embed_dims=128))
