"""Every stage scores all classes in the first half of the training."""
_base_ = './a5_contextual.py'

custom_hooks = [dict(type='mmctx.CascadeWarmUpHook', share=0.5)]
