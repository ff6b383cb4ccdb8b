"""Four times as long as the size for two CPU cores, for a few rows."""
_base_ = './cpu.py'

max_iters = 2000
val_interval = 250
