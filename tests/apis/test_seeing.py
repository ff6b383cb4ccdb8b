"""What `mmctx see` shows, held to the networks themselves and to layers of known geometry."""

import copy
import sys
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn as nn
from PIL import Image

from mmctx.apis.predicting import Predictor
from mmctx.apis.seeing import (
    ContextViewer,
    cascade_of,
    class_vectors,
    cosines,
    grad_cam,
    kernel_changes,
    places_on_a_plane,
    sampling_views,
)
from mmctx.apis.seeing.kernels import likeness
from mmctx.commands import see
from mmctx.errors import UserError
from mmctx.models.backbones import ContextualConvNeXt, ContextualResNet
from mmctx.models.context_record import choose_convolution
from mmctx.models.map_geometry import GeometryTracer
from mmctx.visualization.cascade import Step, entries_of, fell_out


@pytest.fixture(scope='module')
def viewer(classifier):
    return ContextViewer(Predictor(classifier / 'epoch_1.pth', device='cpu'))


@pytest.fixture(scope='module')
def subject(viewer, pictures):
    return viewer.load(pictures / 'more' / 'd.jpg', 'cat')


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `mmctx see` in this process, and returns what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['mmctx see', *map(str, arguments), '--device', 'cpu'])
        see.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_the_student_or_teacher_that_predicts_is_seen(viewer):
    pair = SimpleNamespace(
        semi_test_cfg=dict(predict_on='student'), student=viewer.model, teacher=None
    )
    predictor = SimpleNamespace(model=pair, kind='mmdet', classes=None)
    assert ContextViewer(predictor).backbone is viewer.backbone
    predictor.model = nn.Linear(2, 2)
    with pytest.raises(UserError, match='this Linear has no backbone to look into'):
        ContextViewer(predictor)


def test_a_panoptic_detector_is_looked_at_in_the_centre(viewer):
    predictor = Mock(return_value=[dict(segments=[])], model=viewer.model, kind='mmdet')
    predictor.load.return_value = dict(data_samples=SimpleNamespace(ori_shape=(8, 8)))
    found = ContextViewer(predictor).places_of_interest(SimpleNamespace(path='a.jpg'))
    assert found == [(0.5, 0.5)]


def test_picture_is_shown_as_the_network_sees_it(viewer, subject, pictures):
    pixels = np.asarray(Image.open(pictures / 'more' / 'd.jpg'))
    # JPEG decoders differ by a step or two.
    assert np.abs(subject.image.astype(int) - pixels).max() <= 3
    # This network takes BGR as it is.
    expected = torch.from_numpy(subject.image[..., ::-1].copy()).permute(2, 0, 1).float()
    torch.testing.assert_close(subject.inputs[0], expected)
    assert subject.label == 2


def test_label_is_that_of_the_folder_unless_one_is_given(viewer, subject, pictures, tmp_path):
    for folder, label in (('Dog', 3), ('cow', None)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / 'x.jpg'
        path.write_bytes((pictures / 'a.jpg').read_bytes())
        assert viewer.load(path).label == label
    assert viewer.load(path, 'fox').label == 5 == viewer.load(path, '5').label
    with pytest.raises(UserError, match=r"no class 'cow' among 6: ant, bee"):
        viewer.load(path, 'cow')


def test_cascade_ends_with_what_the_network_predicts(viewer, subject):
    steps = cascade_of(viewer, subject)
    # Of six classes a half, a fifth and a twentieth, and at least one.
    assert [int(step.kept.sum()) for step in steps] == [3, 1, 1, 1]
    (result,) = viewer.predictor([subject.path], top_k=6)
    assert steps[-1].kept.argmax() == result['labels'][0]['label']
    for entry in result['labels']:
        assert steps[-1].scores[entry['label']] == pytest.approx(entry['score'], abs=1e-4)
    with torch.no_grad():
        logits = viewer.backbone(subject.inputs)
    for step, of_stage in zip(steps, logits):
        np.testing.assert_allclose(step.scores, of_stage[0].softmax(0).numpy(), rtol=1e-5)
    for before, after in pairwise(steps):
        assert not (after.kept & ~before.kept).any()


def test_lines_of_a_stage_keep_the_true_class_in_view():
    scores = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    kept = np.array([True, True, True, False, False])
    step = Step(1, scores, kept)
    assert [entry.label for entry in entries_of(step, None, 2)] == [0, 1]
    # Kept, but not among the likeliest.
    assert [entry[:2] for entry in entries_of(step, 2, 2)] == [(0, 1), (2, 3)]
    (_, last) = entries_of(step, 4, 2)
    assert last == (4, 5, 0.05, False)
    later = Step(2, scores, np.array([True, False, False, False, False]))
    assert [fell_out([step, later], label) for label in (0, 1, 3, None)] == [None, 2, 1, None]


@pytest.mark.parametrize('kind', ['patches', 'resnet'])
def test_geometry_of_maps_is_where_the_gradient_lies(kind):
    """Layers that see one pixel or a symmetric window: its centre of gravity is the place."""
    torch.manual_seed(0)
    if kind == 'patches':
        arch = dict(depths=[1, 1, 2, 1], channels=[4, 4, 4, 4])
        network = ContextualConvNeXt(arch=arch, num_classes=6, considered=(4, 3, 2))
        layer, stride, origin = network.stages[2][0].depthwise_conv, 16, 7.5
    else:
        network = ContextualResNet(
            depth=18, stem_channels=4, base_channels=4, num_classes=6, considered=(4, 3, 2)
        )
        layer, stride, origin = network.layer3[1].conv1, 16, 0
    images = torch.zeros(1, 3, 96, 128)
    with GeometryTracer(network.eval(), layer) as tracer, torch.no_grad():
        network(images)
    assert tracer.geometry.stride == (stride, stride)
    assert tracer.geometry.origin == (origin, origin)
    place = tracer.geometry.on_image(torch.tensor([[1.0, 2.0]]))
    assert place.tolist() == [[stride + origin, 2 * stride + origin]]
    assert not any(module._forward_hooks for module in network.modules())


def test_geometry_agrees_with_the_gradient_of_a_pixel():
    network = nn.Sequential(
        nn.Conv2d(1, 1, 4, 4), nn.Conv2d(1, 1, 3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.Conv2d(1, 1, 1)
    )
    for module in network:
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    with GeometryTracer(network, network[3]) as tracer:
        network(image)[0, 0, 3, 4].backward()
    mass = image.grad[0, 0]
    rows = (mass.sum(1) * torch.arange(128)).sum() / mass.sum()
    columns = (mass.sum(0) * torch.arange(128)).sum() / mass.sum()
    (place,) = tracer.geometry.on_image(torch.tensor([[3.0, 4.0]])).tolist()
    assert place == pytest.approx([rows.item(), columns.item()], rel=1e-5)


def test_sampling_points_and_fields_of_a_position(viewer, subject):
    layer = choose_convolution(viewer.backbone, 2)
    assert layer == 'layer2.0.conv2'
    first, second = sampling_views(viewer, subject, layer, [(0.5, 0.5), (0.0, 1.0)])
    # In a basic block the first convolution has the stride.
    np.testing.assert_allclose(first.centre, [32, 32])
    np.testing.assert_allclose(second.centre, [0, 56])
    np.testing.assert_allclose(first.regular[0], first.centre - 8)
    np.testing.assert_allclose(first.regular[-1], first.centre + 8)
    record = viewer.run(subject)
    offset = record.convolutions[layer].sampling_offset[0, :, 4, 4].view(9, 2).flip(1) * 8
    np.testing.assert_allclose(first.shifted - first.regular, offset.numpy(), atol=1e-4)
    assert first.mask is None
    # Without Δp the field lies about the centre, by as much as the layers before it reach.
    reach = 8 + 4 + 4 * 4 + 2 + 3
    rows, columns = np.nonzero(second.regular_field)
    assert rows.min() == 56 - reach and columns.max() == reach
    assert first.shifted_field.shape == (64, 64) and first.shifted_field.max() > 0
    assert all(parameter.requires_grad for parameter in viewer.backbone.layer2.parameters())
    with pytest.raises(UserError, match='from 0 to 1'):
        sampling_views(viewer, subject, layer, [(1.5, 0)])


def test_changes_of_kernels_are_by_class(viewer, pictures):
    subjects = [viewer.load(pictures / 'a.jpg', 'bee'), viewer.load(pictures / 'b.png', 'ant')]
    layer = choose_convolution(viewer.backbone, 3)
    found = kernel_changes(viewer, subjects, layer)
    assert found.labels == [0, 1]
    column = found.layers.index(layer)
    for row, subject in zip((1, 0), subjects):
        change = viewer.run(subject).convolutions[layer].weight_offset[0]
        weight = viewer.backbone.get_submodule(layer).weight
        share = change.norm() / weight.flatten(1).norm(dim=1).mean()
        assert found.changes[row, column] == pytest.approx(share.item(), rel=1e-5)
    # Of two classes, what they do not share is opposite.
    np.testing.assert_allclose(found.likeness, [[1, -1], [-1, 1]], atol=1e-4)


def test_likeness_is_without_what_all_share():
    shared = torch.tensor([100.0, 0.0, 0.0])
    vectors = torch.eye(3)[[1, 1, 2, 2]] + shared
    expected = [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]]
    torch.testing.assert_close(likeness(vectors), torch.tensor(expected, dtype=torch.float32))
    assert likeness(vectors[:1]).tolist() == [[1.0]]
    assert cosines(torch.tensor([[3.0, 4.0], [4.0, 3.0]]))[0, 1].item() == pytest.approx(0.96)


def vanilla_viewer(viewer):
    """One that looks into a vanilla ResNet18 with as many classes."""
    from mmpretrain.models import ImageClassifier

    looking = copy.copy(viewer)
    looking.model = ImageClassifier(
        backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=6, in_channels=64),
    ).eval()
    looking.backbone = looking.model.backbone
    return looking


@pytest.mark.parametrize('kind', ['contextual', 'vanilla'])
def test_cam_is_the_gradient_weighted_map_of_the_last_block(kind, viewer, subject):
    pytest.importorskip('captum')
    looking = viewer if kind == 'contextual' else vanilla_viewer(viewer)
    label, values = grad_cam(looking, subject)
    maps = []
    block = looking.backbone.layer4[-1]
    handle = block.register_forward_hook(lambda m, a, out: maps.append(out))
    scores = looking.model(subject.inputs)[0]
    handle.remove()
    assert label == scores.argmax()
    (gradient,) = torch.autograd.grad(scores[label], maps[0])
    expected = (gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(expected, (64, 64), mode='bilinear').detach()
    np.testing.assert_allclose(values, expected[0, 0].numpy(), atol=1e-6)
    if kind == 'contextual':
        dropped = int((scores == -torch.inf).nonzero()[0])
        with pytest.raises(UserError, match='no longer considers'):
            grad_cam(viewer, subject, dropped)


def test_frame_of_a_clip_is_seen_too(recognizer, clip):
    viewer = ContextViewer(Predictor(recognizer / 'epoch_1.pth', device='cpu'))
    subject = viewer.load(clip)
    assert subject.inputs.shape == (4, 3, 32, 32) and subject.frame == 2
    assert subject.image.shape == (32, 32, 3) and subject.label is None
    assert [int(step.kept.sum()) for step in cascade_of(viewer, subject)] == [10, 4, 2]
    (view,) = sampling_views(viewer, subject, choose_convolution(viewer.backbone, 2))
    assert view.shifted_field.shape == (32, 32)
    assert viewer.names[:2] == ('class 0', 'class 1')


def test_every_figure_is_drawn(classifier, pictures, command, tmp_path):
    pytest.importorskip('captum')
    pytest.importorskip('sklearn')
    checkpoint = ('--checkpoint', classifier / 'epoch_1.pth', '--out', tmp_path)
    vanilla = ('--vanilla', classifier / 'epoch_1.pth')
    for figure in ('cascade', 'sampling', 'tsne', 'cam'):
        (line,) = command(figure, pictures / 'a.jpg', *checkpoint, *vanilla)[-1:]
        assert line == str(tmp_path / f'a.jpg.{figure}.png')
        assert np.asarray(Image.open(line).convert('L')).std() > 10
    assert command('kernels', pictures / 'a.jpg', *checkpoint)[-1].endswith('kernels.png')
    assert command('similarity', *checkpoint, *vanilla)[-1].endswith('similarity.png')


def test_mistakes_are_told_in_a_line(classifier, viewer, subject, pictures, command, tmp_path):
    out = ('--out', tmp_path, '--checkpoint', classifier / 'epoch_1.pth')
    with pytest.raises(UserError, match=r'block 1 of stage 2 has no contextual convolution'):
        command('sampling', pictures / 'a.jpg', '--stage', 2, '--block', 1, *out)
    with pytest.raises(SystemExit):
        command('similarity', pictures / 'a.jpg', *out)
    with pytest.raises(UserError, match='t-SNE of 3 classes'):
        places_on_a_plane(torch.randn(3, 4))


def test_detector_is_looked_at_where_its_objects_are(viewer, subject):
    pytest.importorskip('captum')

    class Detector:
        kind = 'mmdet'
        objects = [dict(box=[10, 20, 30, 60]), dict(box=[90, 0, 110, 10]), dict(box=[0, 0, 1, 1])]

        def __call__(self, files):
            yield dict(objects=self.objects)

        def load(self, path):
            return dict(data_samples=SimpleNamespace(ori_shape=(80, 100)))

    looking = copy.copy(viewer)
    looking.predictor = Detector()
    assert looking.places_of_interest(subject) == [(0.2, 0.5), (1, 0.0625)]
    looking.predictor.objects = []
    assert looking.places_of_interest(subject) == [(0.5, 0.5)] == viewer.places_of_interest(subject)
    with pytest.raises(UserError, match='Grad-CAM is of class scores'):
        grad_cam(looking, subject)


def test_vanilla_network_has_vectors_of_classes_and_no_cascade(viewer, subject):
    assert class_vectors(viewer).shape[0] == 6
    looking = vanilla_viewer(viewer)
    torch.testing.assert_close(class_vectors(looking), looking.model.head.fc.weight.detach())
    with pytest.raises(UserError, match='this ResNet is not contextual'):
        cascade_of(looking, subject)
