"""Table 6, c8: class embeddings of width 512."""
_base_ = '../ctx_resnet50_in1k.py'

model = dict(backbone=dict(embed_dims=512))
