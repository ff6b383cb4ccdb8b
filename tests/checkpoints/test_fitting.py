"""Weights that a model would silently ignore are refused."""

import pytest
import torch
from torch import nn

from mmctx.checkpoints.fitting import Weights, check_fit, shapes_as_loaded, weight_shapes
from mmctx.errors import UserError


class Detector(nn.Module):
    """Stands in for a detector: two parts."""

    def __init__(self, classes=3):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = nn.Linear(2, classes)


def weights_of(model, complete=True):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return Weights('w.pth', shapes, complete=complete)


def test_weights_of_the_model_fit():
    check_fit(Detector(), weights_of(Detector()))


def test_a_bare_network_is_told_from_a_file_without_weights():
    with pytest.raises(UserError, match=r"bare network, in 'model'.* pretrained=w.pth"):
        weight_shapes({'model': {'stem.weight': torch.zeros(2)}}, 'w.pth')
    with pytest.raises(UserError, match=r'w\.pth holds no weights'):
        weight_shapes({'meta': 1}, 'w.pth')


def test_foreign_weights_are_refused():
    with pytest.raises(UserError, match=r"of another model: none of its 2 weights .*'0.weight'"):
        check_fit(Detector(), weights_of(nn.Sequential(nn.Linear(2, 2)), complete=False))


def test_a_backbone_alone_starts_a_training_but_is_not_tested():
    shapes = {'backbone.weight': (2, 2), 'backbone.bias': (2,)}
    check_fit(Detector(), Weights('w.pth', shapes))
    with pytest.raises(UserError, match='no weight that fits head'):
        check_fit(Detector(), Weights('w.pth', shapes, complete=True))


def test_another_number_of_classes():
    model = Detector()
    model.head = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 5))
    given = weights_of(model)
    given.shapes['head.1.weight'] = (80, 2)
    with pytest.raises(UserError, match=r'head.1.weight is \(80, 2\) in the file and \(5, 2\)'):
        check_fit(model, given)
    check_fit(model, given._replace(complete=False))


def test_hooks_that_rename_weights_are_respected():
    model = Detector()

    def rename(state, prefix, *_):
        state[f'{prefix}weight'] = state.pop(f'{prefix}kernel')

    model.head._register_load_state_dict_pre_hook(rename)
    shapes = {'head.kernel': (3, 2), 'backbone.bias': (2,)}
    assert shapes_as_loaded(model, shapes) == {'head.weight': (3, 2), 'backbone.bias': (2,)}
    check_fit(model, Weights('w.pth', shapes, complete=True))
