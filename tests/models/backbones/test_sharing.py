"""Networks in several threads, copied, and pickled as a whole."""

import copy
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn as nn
from trained_networks import run_python

from mmctx.apis import build_classifier
from mmctx.models.backbones import (
    ContextualConvNeXt,
    ContextualResNet,
    ContextualResNet_CIFAR,
    ContextualResNetTSM,
)

FEW = dict(num_classes=12, considered=(8, 5, 3), embed_dims=8)
SMALL = dict(arch=dict(depths=[1, 1, 2, 1], channels=[8, 8, 16, 16]), every=1)
BACKBONES = {
    'convnext': lambda: ContextualConvNeXt(**SMALL, **FEW),
    'convnext, released': lambda: ContextualConvNeXt(**SMALL, preset='released', **FEW),
    'resnet': lambda: ContextualResNet(18, stem_channels=8, base_channels=8, **FEW),
    'resnet, prior as input': lambda: ContextualResNet(
        50, stem_channels=8, base_channels=8, prior='input', **FEW
    ),
    'resnet, no prior': lambda: ContextualResNet(
        18, stem_channels=8, base_channels=8, prior='none', **FEW
    ),
    'cifar': lambda: ContextualResNet_CIFAR(18, stem_channels=8, base_channels=8, **FEW),
    'tsm': lambda: ContextualResNetTSM(18, num_segments=2, stem_channels=8, base_channels=8, **FEW),
}


def randomized(name):
    network = BACKBONES[name]()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def last_map(network, x):
    output = network(x)
    return output[-1] if isinstance(output, tuple) else output


@pytest.mark.parametrize('name', BACKBONES)
def test_threads_share_a_network(name):
    network = randomized(name)
    images = [torch.randn(2, 3, 32, 32) for _ in range(4)]
    with torch.inference_mode():
        alone = [last_map(network, x) for x in images]
    ready = threading.Barrier(len(images))

    def work(number):
        ready.wait()
        with torch.inference_mode():
            return [last_map(network, images[(number + i) % len(images)]) for i in range(6)]

    with ThreadPoolExecutor(len(images)) as pool:
        for number, results in enumerate(pool.map(work, range(len(images)))):
            for i, result in enumerate(results):
                torch.testing.assert_close(result, alone[(number + i) % len(images)])


@pytest.mark.parametrize('name', BACKBONES)
def test_a_copy_and_a_pickled_network_do_the_same(name):
    network = randomized(name)
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    x = torch.randn(2, 3, 32, 32)
    expected = last_map(network, x)
    for other in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        torch.testing.assert_close(last_map(other, x), expected)
        # Its loading hooks are its own, and still take what the network takes.
        other.load_state_dict({k: torch.zeros_like(v) for k, v in network.state_dict().items()})
        assert not any(p.any() for p in other.parameters())
    torch.testing.assert_close(last_map(network, x), expected)


def test_a_pickled_classifier_classifies():
    classifier = build_classifier(dict(type='mmctx.ContextualConvNeXt', **SMALL, **FEW)).eval()
    file = io.BytesIO()
    torch.save(classifier, file)
    file.seek(0)
    x = torch.randn(2, 3, 32, 32)
    other = torch.load(file, weights_only=False)
    torch.testing.assert_close(other.extract_feat(x), classifier.extract_feat(x))


LOAD = """
import sys, torch
network = torch.load('network.pth', weights_only=False)
torch.save(network(torch.load('images.pth')), 'result.pth')
print(type(network).__module__)
"""


@pytest.mark.slow
@pytest.mark.parametrize('name', BACKBONES)
def test_a_saved_network_loads_in_an_interpreter_that_knows_nothing_of_it(name, tmp_path):
    network, images = randomized(name), torch.randn(2, 3, 32, 32)
    torch.save(network, tmp_path / 'network.pth')
    torch.save(images, tmp_path / 'images.pth')
    assert run_python(LOAD, cwd=tmp_path).startswith('mmctx.models.backbones')
    result = torch.load(tmp_path / 'result.pth')
    result = result[-1] if isinstance(result, tuple) else result
    torch.testing.assert_close(result, last_map(network, images))


@pytest.mark.parametrize('name', ['convnext', 'resnet'])
def test_threads_share_one_compiled_graph(name):
    network = randomized(name)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(network, fullgraph=True, backend='aot_eager')
    images = [torch.randn(2, 3, 32, 32) for _ in range(3)]
    with torch.no_grad():
        alone = [last_map(network, x) for x in images]
        torch.testing.assert_close(last_map(compiled, images[0]), alone[0])

    def work(number):
        with torch.no_grad():
            return [last_map(compiled, images[number]) for _ in range(3)]

    with ThreadPoolExecutor(len(images)) as pool:
        for result, expected in zip(pool.map(work, range(len(images))), alone):
            for each in result:
                torch.testing.assert_close(each, expected)
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1
