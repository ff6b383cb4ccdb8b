"""The losses of all stages through kernels against those in PyTorch, in float64."""

from functools import partial

import pytest
import torch
from torch.nn.functional import one_hot

pytest.importorskip('triton')
pytest.importorskip('mmpretrain')  # which a machine with just a GPU may lack

from mmctx.models.losses import StagewiseCrossEntropy, stagewise_cross_entropy
from mmctx.ops import losses
from mmctx.ops.triton import stage_losses as kernels

pytestmark = pytest.mark.usefixtures('way', 'through_kernels')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
WEIGHTS = 0.15, 0.3, 2.0, 1.0


def logits_of(stages, batch, classes):
    """Logits of stages that consider ever fewer classes, but at least one."""
    found, considered = [], torch.ones(batch, classes, dtype=torch.bool)
    for _ in range(stages):
        logits = torch.randn(batch, classes) * 5
        found.append(logits.masked_fill(~considered, -torch.inf).to(DEVICE))
        considered = considered & (torch.rand(batch, classes) < 0.6)
        considered[:, 0] = True
    return found


def with_gradients(loss, stage_logits, target):
    leaves = [logits.clone().requires_grad_() for logits in stage_logits]
    values = loss(leaves, target)
    cotangents = [value.new_tensor(i + 0.5) for i, value in enumerate(values)]
    return [torch.stack(values), *torch.autograd.grad(values, leaves, cotangents)]


def assert_near(got, expected):
    for value, exact in zip(got, expected, strict=True):
        scale = exact.abs().max().clamp(min=1e-6)
        assert value.dtype == torch.float32 and (value.double() - exact).abs().max() / scale < 1e-5


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 1])
@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize(('stages', 'batch', 'classes'), [
    (1, 1, 1), (4, 3, 70), (3, 2, 128), (2, 5, 2100),
])  # fmt: skip
def test_agrees_with_float64(stages, batch, classes, soft, smoothing, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(kernels, 'ADDED_AT_ONCE', 2)
    kernels._plan.cache_clear()
    stage_logits = logits_of(stages, batch, classes)
    target = torch.randint(0, classes, (batch,), device=DEVICE)
    if soft:
        target = one_hot(target, classes) * 0.7 + one_hot(target.flip(0), classes) * 0.3
    assert losses.takes_stage_losses(stage_logits, target)
    loss = StagewiseCrossEntropy(WEIGHTS[:stages], smoothing)
    got = with_gradients(loss, stage_logits, target)
    exact = [logits.double() for logits in stage_logits]
    assert not losses.takes_stage_losses(exact, target)
    assert_near(got, with_gradients(loss, exact, target.double() if soft else target))


def test_target_without_a_considered_class_gives_zero():
    logits = torch.tensor([[0.5, -torch.inf, 2.0]], device=DEVICE)
    loss = StagewiseCrossEntropy((1.0,), 0.1)
    for target in (torch.tensor([1]), torch.tensor([[0.0, 1.0, 0.0]])):
        value, grad = with_gradients(loss, [logits], target.to(DEVICE))
        assert value == 0 and (grad == 0).all()


@pytest.mark.parametrize('label', [-1, 3])
def test_a_label_of_no_class_is_seen(label):
    logits = torch.zeros(2, 3, device=DEVICE, requires_grad=True)
    (value,) = StagewiseCrossEntropy((1.0,))([logits], torch.tensor([0, label], device=DEVICE))
    assert value.isnan()


@pytest.mark.parametrize('backend', ['triton', 'tapwise'])
@pytest.mark.parametrize('whole_row', [True, False])
def test_a_logit_that_is_no_number_is_seen(whole_row, backend, monkeypatch):
    """One value of a network that is no number makes a row of logits so."""
    monkeypatch.setenv('MMCTX_BACKEND', backend)
    logits = torch.zeros(2, 3, device=DEVICE)
    logits[1, slice(None) if whole_row else slice(2, 3)] = torch.nan
    for label in (0, 2):
        (value,) = StagewiseCrossEntropy((1.0,))([logits], torch.tensor([0, label], device=DEVICE))
        assert value.isnan()


def test_mean_over_processes_is_the_loss_of_all_their_samples(monkeypatch):
    stage_logits = logits_of(2, 5, 9)
    target = torch.tensor([3, 0, 4, 0, 8], device=DEVICE)
    loss = StagewiseCrossEntropy(WEIGHTS[:2], 0.1)
    whole = with_gradients(loss, stage_logits, target)
    counted = [[logits[i, t].isfinite() for i, t in enumerate(target)] for logits in stage_logits]
    counted = torch.tensor(counted, device=DEVICE).float()
    monkeypatch.setattr(stagewise_cross_entropy, 'get_world_size', lambda: 2)
    parts = []
    for here, others in ((slice(0, 2), slice(2, 5)), (slice(2, 5), slice(0, 2))):
        add = partial(torch.Tensor.add_, other=counted[:, others].sum(1))
        monkeypatch.setattr(stagewise_cross_entropy, 'all_reduce', add)
        parts.append(with_gradients(loss, [x[here] for x in stage_logits], target[here]))
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, whole[0])
    for first, second, all_of_them in zip(*(part[1:] for part in (*parts, whole)), strict=True):
        torch.testing.assert_close(torch.cat([first, second]) / 2, all_of_them)


def test_is_left_to_pytorch_where_kernels_cannot():
    logits, target = torch.randn(2, 3, device=DEVICE), torch.tensor([0, 1], device=DEVICE)
    assert losses.takes_stage_losses([logits] * 4, target)
    soft = torch.rand(2, 3, device=DEVICE, requires_grad=True)
    for given, of in (
        ([logits] * 5, target), ([logits, logits.double()], target), ([logits[:0]], target[:0]),
        ([logits], soft), ([torch.randn(2, 8193, device=DEVICE)], target),
    ):  # fmt: skip
        assert not losses.takes_stage_losses(given, of)
        StagewiseCrossEntropy((1.0,) * len(given))(given, of)
