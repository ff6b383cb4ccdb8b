"""Weights that a model would silently ignore are refused."""

import pytest
import torch
from torch import nn

import mmctx
from mmctx.checkpoints import fitting
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
    other = dict(epoch=3, model_state_dict={'stem.weight': torch.zeros(2)})
    with pytest.raises(UserError, match=r"in 'model_state_dict', not in 'state_dict': save one of"):
        weight_shapes(other, 'w.pth')


def test_weights_of_a_training_that_diverged():
    state = Detector().state_dict()
    state['head.bias'][1] = float('nan')
    with pytest.raises(UserError, match=r'1 of the 4 tensors of w\.pth hold NaN.*: head\.bias;'):
        weight_shapes(dict(state_dict=state), 'w.pth')
    # A mask may well be infinite.
    state['head.bias'][1] = float('inf')
    assert len(weight_shapes(dict(state_dict=state), 'w.pth')) == 4


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
    model.backbone = nn.Linear(20, 20)
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
    shapes = {'head.kernel': (3, 2), 'head.bias': (3,)}
    assert shapes_as_loaded(model, shapes) == {'head.weight': (3, 2), 'head.bias': (3,)}
    shapes |= {'backbone.weight': (2, 2), 'backbone.bias': (2,)}
    check_fit(model, Weights('w.pth', shapes, complete=True))


def resnet(depth):
    from mmpretrain.models import ResNet

    return ResNet(depth)


def test_weights_of_another_depth_share_a_few_layers_and_all_counters():
    with pytest.raises(UserError, match=r'only \d\d% of the parameters of the ResNet'):
        check_fit(resnet(18), weights_of(resnet(50), complete=False))


def test_counters_alone_are_no_fit():
    given = weights_of(resnet(18), complete=False)
    shapes = {name: s for name, s in given.shapes.items() if name.endswith('num_batches_tracked')}
    with pytest.raises(UserError, match='none of its 20 weights fits'):
        check_fit(resnet(18), given._replace(shapes=shapes))


def test_a_part_of_which_much_is_missing_is_not_tested():
    given = weights_of(resnet(18))
    shapes = {name: s for name, s in given.shapes.items() if not name.startswith('layer4.1')}
    with pytest.raises(UserError, match=r'has 4\d% of the parameters of layer4 .*lacks layer4.1'):
        check_fit(resnet(18), given._replace(shapes=shapes))


def test_what_is_loaded_and_what_is_not_is_said_in_one_line(monkeypatch):
    said = []
    monkeypatch.setattr('mmctx.checkpoints.fitting.print_log', lambda text, **_: said.append(text))
    shapes = {'backbone.weight': (2, 2), 'backbone.bias': (2,), 'fc.weight': (9, 2)}
    check_fit(Detector(), Weights('w.pth', {**shapes, 'head.weight': (3, 2)}))
    assert said == [
        'w.pth has 12 of 15 parameters of the model; 1 tensors keep their initial values '
        '(head.bias); 1 of the file are not used (fc.weight)'
    ]


def test_embeddings_of_another_number_of_classes(monkeypatch):
    """A detector can have the classes of the classifier it starts from; a classifier cannot."""

    def backbone(**options):
        sizes = dict(stem_channels=8, base_channels=8, embed_dims=8)
        return mmctx.ContextualResNet(18, **sizes, **options)

    shapes = {
        f'backbone.{name}': tuple(value.shape)
        for name, value in backbone(num_classes=40).state_dict().items()
    }
    detector = Detector()
    detector.backbone = backbone(num_classes=1000)
    with pytest.raises(
        UserError,
        match=r'w\.pth has embeddings of 40 classes, and model\.backbone of 1000, which would '
        r'start at random: set model\.backbone\.num_classes=40 and .*\(20, 8, 2\)',
    ):
        check_fit(detector, Weights('w.pth', shapes))
    detector.backbone = backbone(num_classes=40)
    check_fit(detector, Weights('w.pth', shapes))

    warned = []
    monkeypatch.setattr(fitting, 'print_log', lambda text, *_, **__: warned.append(text))
    detector.backbone = backbone(num_classes=4, out_type='logits')
    check_fit(detector, Weights('w.pth', shapes))
    assert warned[-1] == (
        'w.pth has embeddings of 40 classes, and model.backbone of 4: these start anew'
    )
