"""Table 1: RegNetY-8G, torchvision's network with the recipe of the Swin rows."""
_base_ = './regnety_4g_in1k.py'

model = dict(backbone=dict(arch='8gf'), head=dict(in_channels=2016))
