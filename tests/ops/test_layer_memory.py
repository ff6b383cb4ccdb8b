"""What is remembered of a layer is forgotten as soon as a part of it changes."""

import copy
import gc
import pickle
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmctx.ops.layer_memory import LayerMemory


class Layer(nn.Module):
    """A module with a predictor of a norm in training."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.predictor = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Lookup:
    """Counts how often it is asked, and knows all tensors of a layer."""

    def __init__(self, layer, more=()):
        self.layer, self.more, self.asked = layer, more, 0

    def __call__(self):
        self.asked += 1
        tensors = [*self.layer.parameters(), *self.layer.buffers(), *self.more]
        return SimpleNamespace(tensors=tensors, number=self.asked)


def halve_a_weight(layer):
    weight = layer.predictor[0].weight
    weight.data = weight.data.half()


CHANGES = {
    'a parameter': lambda layer: setattr(layer, 'weight', nn.Parameter(layer.weight.detach())),
    'data of a parameter': lambda layer: setattr(layer.weight, 'data', layer.weight.data.clone()),
    'type': halve_a_weight,
    'all types': nn.Module.double,
    'mode': nn.Module.eval,
    'mode of a norm': lambda layer: layer.predictor[1].eval(),
    'epsilon': lambda layer: setattr(layer.predictor[1], 'eps', 1e-3),
    'momentum': lambda layer: setattr(layer.predictor[1], 'momentum', None),
    'a norm': lambda layer: layer.predictor.__setitem__(1, nn.LayerNorm(4)),
    'a predictor': lambda layer: setattr(layer, 'predictor', copy.deepcopy(layer.predictor)),
    'no predictor': lambda layer: delattr(layer, 'predictor'),
    'another child': lambda layer: layer.add_module('more', nn.ReLU()),
    'statistics': lambda layer: layer.predictor[1].register_buffer('running_mean', torch.ones(4)),
    'no statistics': lambda layer: setattr(layer.predictor[1], 'running_mean', None),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed(change):
    layer, memory = Layer(), LayerMemory()
    look_up = Lookup(layer)
    for _ in range(3):
        assert memory.recall(layer, (1,), look_up).number == 1
    change(layer)
    for _ in range(3):
        assert memory.recall(layer, (1,), look_up).number == 2


def test_values_that_change_are_no_change():
    layer, memory = Layer(), LayerMemory()
    look_up = Lookup(layer)
    memory.recall(layer, (), look_up)
    layer.load_state_dict(Layer().state_dict())
    layer.predictor(torch.randn(5, 3)).sum().backward()
    torch.optim.SGD(layer.parameters(), 0.1).step()
    memory.recall(layer, (), look_up)
    assert look_up.asked == 1


def test_other_options_and_other_modules_are_looked_up():
    layer, memory = Layer(), LayerMemory()
    look_up = Lookup(layer)
    assert memory.recall(layer, (1,), look_up).number == 1
    assert memory.recall(layer, (2,), look_up).number == 2
    assert memory.recall(Layer(), (2,), look_up).number == 3


def test_computed_tensors_and_nothing_are_not_remembered():
    layer, memory = Layer(), LayerMemory()
    computed = Lookup(layer, more=[layer.weight * 2])
    assert [memory.recall(layer, (), computed).number for _ in range(2)] == [1, 2]
    asked = []
    for _ in range(2):
        assert memory.recall(layer, (), lambda: asked.append(1)) is None
    assert len(asked) == 2


@pytest.mark.parametrize(
    'copied', [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_remembers_nothing(copied):
    layer, memory = Layer(), LayerMemory()
    memory.recall(layer, (), Lookup(layer))
    assert copied(memory).remembered is None


def test_a_memory_does_not_keep_its_layer_alive():
    """Nor the memory of a GPU, until garbage is collected."""
    layer = Layer()
    layer.memory = LayerMemory()
    tensors = [*layer.parameters(), *layer.buffers()]
    layer.memory.recall(layer, (), lambda: SimpleNamespace(tensors=tensors))
    gone = weakref.ref(layer)
    gc.disable()
    try:
        del layer
        assert gone() is None
    finally:
        gc.enable()
