"""Table 1: RegNetY-16G, torchvision's network with the recipe of the Swin rows."""
_base_ = './regnety_4g_in1k.py'

model = dict(backbone=dict(arch='16gf'), head=dict(in_channels=3024))
