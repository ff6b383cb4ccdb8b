"""mmpretrain's Lamb for networks with scalar parameters, such as τ.

It divides each gradient in place by a norm of one element, which PyTorch refuses for a scalar.
"""

import functools

from .after_import import after_import


def install():
    """Let mmpretrain's Lamb update scalar parameters. Idempotent."""
    after_import('mmpretrain.engine.optimizers.lamb', _accept_scalars)


def _accept_scalars(module):
    own = module.Lamb.step

    @functools.wraps(own)
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with module.torch.enable_grad():
                loss = closure()
        parameters = [p for group in self.param_groups for p in group['params']]
        scalars = [p for p in parameters if p.ndim == 0 and p.grad is not None]
        for parameter in scalars:
            _reshape(parameter, (1,))
        try:
            own(self)
        finally:
            for parameter in scalars:
                _reshape(parameter, ())
        return loss

    module.Lamb.step = step


def _reshape(parameter, shape):
    gradient, parameter.grad = parameter.grad, None
    parameter.data = parameter.data.reshape(shape)
    parameter.grad = gradient.reshape(shape)
