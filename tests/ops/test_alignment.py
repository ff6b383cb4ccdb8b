"""Tensors at any address: parts of others, as views or in a buffer that holds all parameters.

A compiled kernel that may read 16 bytes at a time stops at other addresses, see `conftest`.
"""

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from contextual_cases import make_case
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip('triton')
pytest.importorskip('mmpretrain')  # which a machine with just a GPU may lack

from mmctx.models.layers import ContextualConv2d, Contextualizing, using_prior
from mmctx.models.losses import StagewiseCrossEntropy
from mmctx.ops import contextual_conv2d

pytestmark = pytest.mark.usefixtures('way', 'through_kernels')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
LAYERS = {
    'depthwise': dict(groups=6, depthwise_predictor=True),
    'dense': dict(stride=2, norm='BN', modulated=True, sampling_offset_hidden=3),
}


def unaligned(tensor):
    """The same values, one element behind an aligned address."""
    memory = tensor.new_empty(tensor.numel() + 1)
    moved = memory.as_strided(tensor.shape, tensor.stride(), 1).copy_(tensor)
    assert moved.data_ptr() % 16
    return moved


def unalign(module):
    """Move the parameters and buffers of a module."""
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            parameter.data = unaligned(parameter.data)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = unaligned(buffer)


class Watching(TorchDispatchMode):
    """Context in which kernels are called through registered operators, for it to see."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return operator(*args, **(kwargs or {}))


def gradients(outputs, leaves):
    cotangents = [unaligned(torch.linspace(-1, 1, o.numel(), device=DEVICE).to(o.dtype))
                  .view(o.shape) for o in outputs]  # fmt: skip
    return [*outputs, *torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)]


def assert_same_anywhere(run, module=None):
    """Run with tensors where they are, then with unaligned ones, also those of the module.

    `run` takes a function that leaves a tensor where it is or moves it, and returns tensors.
    """
    state = module and deepcopy(module.state_dict())
    expected = run(lambda tensor: tensor)
    if module is not None:
        module.load_state_dict(state)
        unalign(module)
    for value, exact in zip(run(unaligned), expected, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('context', [nullcontext, Watching])
@pytest.mark.parametrize('depthwise', [True, False])
def test_op(depthwise, context, dtype):
    tensors, options = make_case((2, 6, 4, 3, (3, 3), 1, 1, 1), depthwise, dtype=torch.float32)
    # Positions are of float32.
    halves = 'x', 'weight', 'bias', 'weight_offset'

    def run(place):
        moved = {
            n: place(t.to(DEVICE, dtype if n in halves else t.dtype)).requires_grad_()
            for n, t in tensors.items()
        }
        with context():
            out = contextual_conv2d(**moved, **options)
            return gradients([out], list(moved.values()))

    assert_same_anywhere(run)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('context', [nullcontext, Watching])
@pytest.mark.parametrize('name', LAYERS)
def test_layer(name, context, training):
    layer = ContextualConv2d(
        6, 6, kernel_size=3, padding=1, prior_channels=5, weight_offset_hidden=3, **LAYERS[name]
    )
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer = layer.to(DEVICE).train(training)
    x, prior = torch.randn(2, 6, 5, 3, device=DEVICE), torch.randn(2, 5, device=DEVICE)

    def run(place):
        moved, given = place(x).requires_grad_(), place(prior).requires_grad_()
        with context(), using_prior(given):
            found = gradients([layer(moved)], [moved, given, *layer.parameters()])
            with torch.no_grad():
                found.append(layer(moved))
        return found + [b.clone() for b in layer.buffers()]

    assert_same_anywhere(run, layer)


@pytest.mark.parametrize('norm', ['LN', 'BN'])
@pytest.mark.parametrize('context', [nullcontext, Watching])
def test_stages_and_their_losses(context, norm):
    layer = Contextualizing((3, 5), (4,), 11, (6,), embed_dims=7, norm=norm).to(DEVICE)
    maps = [torch.randn(3, channels, 2, 3, device=DEVICE) for channels in (3, 5)]
    target = torch.arange(3, device=DEVICE)
    losses = StagewiseCrossEntropy((0.5, 1.0), 0.1)

    def run(place):
        moved = [place(x).requires_grad_() for x in maps]
        leaves = [*moved, *layer.parameters()]
        kept, scores, priors = None, [], []
        with context():
            for index, x in enumerate(moved):
                logits, kept, prior = layer(x, index, kept)
                scores.append(logits)
                priors += [] if prior is None else [prior]
            found = gradients([*losses(scores, place(target)), *priors], leaves)
            with torch.no_grad():
                found += [t for t in layer.eval()(moved[0], 0, None) if t is not None]
            layer.train()
        return found + [b.clone() for b in layer.buffers()]

    assert_same_anywhere(run, layer)


@pytest.mark.parametrize('soft', [False, True])
def test_losses_of_logits_at_any_address(soft):
    losses = StagewiseCrossEntropy((0.5, 1.0), 0.1)
    logits = torch.randn(2, 3, 7, device=DEVICE)
    target = torch.rand(3, 7, device=DEVICE) if soft else torch.arange(3, device=DEVICE)

    def run(place):
        leaves = [place(stage).requires_grad_() for stage in logits]
        return gradients(losses(leaves, place(target)), leaves)

    assert_same_anywhere(run)
