"""A module's forward and backward pass replayed from CUDA graphs, beside the module itself."""

import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn

from mmctx.engine import CudaGraphHook, GraphedForward
from mmctx.errors import UserError
from mmctx.registry import MODELS

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def backbone():
    torch.manual_seed(0)
    network = MODELS.build(
        dict(
            type='mmctx.ContextualResNet',
            depth=50,
            base_channels=8,
            out_type='logits',
            num_classes=20,
            considered=(10, 6, 4),
            embed_dims=8,
        )
    )
    for name, parameter in network.named_parameters():
        # Fresh predictors predict nothing.
        if 'predictor' in name:
            nn.init.normal_(parameter, std=0.02)
    return network.to(DEVICE, memory_format=torch.channels_last)


def images(seed, size=32, batch=4):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, size, size, generator=draw)
    return x.to(DEVICE, memory_format=torch.channels_last)


def loss_of(logits):
    return sum(torch.where(t.isinf(), 0, t).float().square().mean() for t in logits)


def step(network, x, amp=False):
    """Loss and gradients of one training step; the gradients are taken away."""
    with torch.autocast(DEVICE, torch.float16, enabled=amp):
        loss = loss_of(network(x))
    loss.backward()
    grads = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return {'loss': loss.detach(), **grads}


def assert_close(got, expected, tolerance):
    """Sums on a GPU differ from run to run, and the kinks of sampling let few gradients jump."""
    assert got.keys() == expected.keys()
    got, expected = (torch.cat([t.flatten().float() for t in d.values()]) for d in (got, expected))
    error = (got - expected).norm() / expected.norm()
    assert error <= tolerance, f'{error:.2e}'


def gradients(network):
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.fixture
def pair():
    """A module, and one with graphs, of the same weights."""
    plain = backbone().train()
    graphed = deepcopy(plain)
    return plain, graphed, GraphedForward(graphed).install()


@needs_gpu
@pytest.mark.parametrize('amp', [False, True])
def test_replayed_training_steps_are_those_of_the_module(pair, amp):
    plain, graphed, forward = pair
    for seed in range(4):
        got, expected = (step(n, images(seed), amp) for n in (graphed, plain))
        assert_close(got, expected, 0.2 if amp else 1e-2)
    assert len(forward.graphs) == 1
    # Batch norms have counted the steps alone, not the capture.
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(graphed.state_dict()[name], value, rtol=1e-2, atol=1e-3)


@needs_gpu
def test_replays_follow_the_weights_that_an_optimizer_changes(pair):
    plain, graphed, forward = pair
    optimizer = torch.optim.SGD(graphed.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        # The same weights each time, as small differences would grow from step to step.
        plain.load_state_dict(graphed.state_dict())
        expected = step(plain, images(0))
        losses.append(loss_of(graphed(images(0))))
        losses[-1].backward()
        assert_close({'loss': losses[-1].detach(), **gradients(graphed)}, expected, 1e-2)
        optimizer.step()
        optimizer.zero_grad()
    assert len(forward.graphs) == 1
    assert len({round(loss.item(), 4) for loss in losses}) == len(losses)


@needs_gpu
def test_gradients_that_accumulate_are_the_sum(pair):
    plain, graphed, forward = pair
    for _ in range(2):
        step(graphed, images(0)), step(plain, images(0))
    for network in (plain, graphed):
        for seed in (1, 2, 3):
            loss_of(network(images(seed))).backward()
    assert forward.graphs
    assert_close(gradients(graphed), gradients(plain), 1e-2)


@needs_gpu
def test_two_passes_before_one_backward_pass(pair):
    plain, graphed, forward = pair
    for _ in range(2):
        step(graphed, images(0)), step(plain, images(0))
    for network in (plain, graphed):
        (loss_of(network(images(1))) * loss_of(network(images(2)))).backward()
    assert forward.graphs
    assert_close(gradients(graphed), gradients(plain), 1e-2)


@needs_gpu
def test_what_changes_on_the_host_is_followed(pair):
    plain, graphed, forward = pair
    for change in (
        lambda n: None,
        lambda n: setattr(n.contextualizing, 'selection', 'rerank'),
        lambda n: setattr(n.contextualizing, 'considered', (20, 20, 20)),
        lambda n: n.conv1.weight.requires_grad_(False),
    ):
        for network in (plain, graphed):
            change(network)
        for seed in range(3):
            got, expected = (step(n, images(seed)) for n in (graphed, plain))
            assert_close(got, expected, 1e-2)
    assert len(forward.graphs) == 4


@needs_gpu
def test_a_graph_is_right_after_others_were_captured_and_memory_was_freed(pair):
    plain, graphed, _ = pair
    for _ in range(3):
        step(graphed, images(0)), step(plain, images(0))
    other = backbone().train()
    GraphedForward(other).install()
    for _ in range(3):
        step(other, images(0))
    torch.cuda.empty_cache()
    # Whatever a graph wrongly counts on is now somebody else's.
    taken = [torch.full((1 << 20,), float('nan'), device=DEVICE) for _ in range(64)]
    for seed in range(3):
        got, expected = (step(n, images(seed)) for n in (graphed, plain))
        assert_close(got, expected, 1e-2)
    assert all(t.isnan().all() for t in taken)


@needs_gpu
def test_inference_results_stay_when_the_next_come(pair):
    plain, graphed, forward = (pair[0].eval(), pair[1].eval(), pair[2])
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            results = [graphed(images(seed)) for seed in range(4)]
            for seed, got in enumerate(results):
                for a, b in zip(got, plain(images(seed)), strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert len(forward.graphs) == 2


@needs_gpu
def test_training_results_stay_when_the_next_come(pair):
    plain, graphed, forward = pair
    kept = []
    for seed in range(4):
        results = graphed(images(seed))
        loss_of(results).backward()
        graphed.zero_grad(set_to_none=True)
        kept.append([t.detach() for t in results])
        expected = plain(images(seed))
    assert forward.graphs
    for a, b in zip(kept[-1], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    assert not torch.equal(kept[-1][-1], kept[-2][-1])


@needs_gpu
def test_a_frozen_module_runs_as_it_is(pair):
    _, graphed, forward = pair
    graphed.requires_grad_(False)
    for _ in range(3):
        graphed(images(0))
    assert not forward.graphs


@needs_gpu
def test_sizes_that_come_once_get_no_graph(pair):
    _, graphed, forward = pair
    for size in (32, 64, 96):
        step(graphed, images(0, size))
    assert not forward.graphs


@needs_gpu
def test_random_numbers_do_not_depend_on_the_capture(pair):
    _, graphed, _ = pair
    torch.cuda.manual_seed(0)
    expected = torch.rand(3, device=DEVICE)
    torch.cuda.manual_seed(0)
    for _ in range(2):
        step(graphed, images(0))
    torch.testing.assert_close(torch.rand(3, device=DEVICE), expected)


@needs_gpu
def test_hooks_of_submodules_still_see_their_calls(pair):
    _, graphed, forward = pair
    for _ in range(3):
        step(graphed, images(0))
    seen = []
    handle = graphed.conv1.register_forward_hook(lambda *_: seen.append(1))
    step(graphed, images(0))
    handle.remove()
    assert forward.graphs and seen == [1]


def test_without_a_gpu_the_module_runs_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    x = torch.randn(2, 3, 8, 8)
    expected = deepcopy(network)(x)
    forward = GraphedForward(network).install()
    for _ in range(3):
        assert torch.equal(network(x), expected)
    assert not forward.graphs


@pytest.mark.parametrize('copied', [deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_runs_by_itself(copied):
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    GraphedForward(network).install()
    copy = copied(network)
    with torch.no_grad():
        copy[0].weight.zero_(), copy[0].bias.fill_(3)
    assert copy(torch.ones(1, 2)).tolist() == [[3, 3]]
    assert copy.forward.__self__ is copy


def test_removed_it_leaves_the_module_as_it_was():
    network = nn.Linear(2, 2)
    forward = GraphedForward(network).install()
    forward.remove()
    assert 'forward' not in vars(network)


@pytest.mark.parametrize(
    'model, words',
    [
        (nn.Linear(1, 1), 'Linear has no backbone'),
        (nn.SyncBatchNorm(2), 'SyncBatchNorm'),
        ('with_cp', 'with_cp'),
    ],
)
def test_the_hook_refuses_what_a_graph_cannot_hold(model, words):
    if model == 'with_cp':
        model = nn.ReLU()
        model.with_cp = True
    if not isinstance(model, nn.Linear):
        model = nn.ModuleDict(dict(backbone=model))
    runner = type('R', (), dict(model=model))
    with pytest.raises(UserError, match=words):
        CudaGraphHook().before_train(runner)
