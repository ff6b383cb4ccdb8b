"""Comparisons of classes and of COCO's metrics, with stand-ins for models and data."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from mmctx.checkpoints.fitting import Weights
from mmctx.cli.agreement.classes import check_classes, class_counts
from mmctx.cli.agreement.inputs import check_clips
from mmctx.cli.agreement.listed import check_listed_sizes
from mmctx.cli.agreement.metrics import check_metrics
from mmctx.cli.agreement.training import check_batches, norm_of_vectors
from mmctx.cli.preflight import Checked
from mmctx.errors import UserError
from mmctx.evaluation.coco_metric import CocoMetric
from mmctx.models.backbones import ContextualResNet


class Part(nn.Module):
    def __init__(self, num_classes=None, **parts):
        super().__init__()
        self.num_classes = num_classes
        for name, part in parts.items():
            self.add_module(name, part)


class RPNHead(Part):
    pass


class DataSet:
    """Stands in for a data set of mmdet."""

    def __init__(self, classes, infos=(), **more):
        self.metainfo, self.infos = dict(classes=classes, **more), infos

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, index):
        return self.infos[index]


NOTHING = Checked([], {})
DETECTOR = Part(
    backbone=Part(1000),
    rpn_head=RPNHead(1),
    roi_head=Part(bbox_head=Part(2, loss_cls=Part(5)), mask_head=Part(2)),
)


def test_only_heads_of_the_data_sets_classes_count():
    assert dict(class_counts(DETECTOR)) == {
        'roi_head.bbox_head.num_classes': 2,
        'roi_head.mask_head.num_classes': 2,
    }


@pytest.mark.parametrize('classes', [('bolt',), ('bolt', 'nut', 'washer')])
def test_heads_of_another_number_are_named_with_both_numbers(classes):
    with pytest.raises(UserError, match=rf'bbox_head.num_classes is 2, .* has {len(classes)} cla'):
        check_classes(DETECTOR, dict(train=[DataSet(classes)]), NOTHING)


def test_heads_of_the_things_of_a_panoptic_set():
    things = dict(thing_classes=('bolt', 'nut'), stuff_classes=('floor',))
    data = DataSet(('bolt', 'nut', 'floor'), **things)
    check_classes(DETECTOR, dict(train=[data]), NOTHING)


def test_classes_in_another_order_in_the_splits():
    data = dict(train=[DataSet(('bolt', 'nut'))], val=[DataSet(('nut', 'bolt'))])
    with pytest.raises(UserError, match='class 0 is bolt in train_dataloader and nut in val_data'):
        check_classes(DETECTOR, data, NOTHING)


@pytest.mark.parametrize('split', ['train', 'test'])
def test_classes_in_another_order_than_the_checkpoint_was_trained_on(split):
    meta = dict(dataset_meta=dict(classes=['nut', 'bolt']))
    checked = Checked([Weights('a.pth', {}, complete=True)], {'a.pth': dict(meta=meta)})
    with pytest.raises(UserError, match=r'a\.pth was trained on other classes.*class 0 is nut'):
        check_classes(DETECTOR, {split: [DataSet(('bolt', 'nut'))]}, checked)
    started = checked._replace(weights=[Weights('a.pth', {})])
    check_classes(DETECTOR, {split: [DataSet(('bolt', 'nut'))]}, started)


@pytest.fixture
def metric(tmp_path):
    """COCO's metric over two images of two bolts."""

    def metric(change=None, **options):
        contents = dict(
            images=[dict(id=i, file_name=f'{i}.png', width=64, height=48) for i in (1, 2)],
            categories=[dict(id=1, name='bolt'), dict(id=2, name='nut')],
            annotations=[
                dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0,
                     segmentation=[[1, 1, 10, 1, 10, 10]])
                for i in (1, 2)
            ],
        )  # fmt: skip
        if change:
            change(contents)
        (tmp_path / 'a.json').write_text(json.dumps(contents))
        return CocoMetric(ann_file=str(tmp_path / 'a.json'), **options)

    return metric


INFOS = [dict(img_id=i, img_path=f'val/{i}.png') for i in (1, 2)]


def check(metric, infos=INFOS, classes=('bolt', 'nut')):
    check_metrics(DETECTOR, [metric], [DataSet(classes, infos)], 'val')


def test_the_file_of_a_metric_that_agrees(metric):
    check(metric())
    check(metric(metric=['bbox', 'segm']))


def test_the_file_of_a_metric_lacks_images_of_the_loader(metric):
    with pytest.raises(UserError, match=r'lacks 1 of the 3 images .*: val/3.png'):
        check(metric(), [*INFOS, dict(img_id=3, img_path='val/3.png')])


def test_the_file_of_a_metric_has_other_images_under_the_ids(metric):
    with pytest.raises(UserError, match=r'or has others under their ids: train/7.png'):
        check(metric(), [dict(img_id=1, img_path='train/7.png')])


def test_the_file_of_a_metric_lacks_a_class(metric):
    with pytest.raises(UserError, match=r'lacks 1 of the 3 classes .*: washer'):
        check(metric(), classes=('bolt', 'nut', 'washer'))


def test_masks_are_scored_that_are_not_there(metric):
    def without(contents):
        contents['annotations'][1]['segmentation'] = []

    check(metric(without))
    with pytest.raises(UserError, match=r"has metric='segm', but annotation 2 .* has no mask"):
        check(metric(without, metric=['bbox', 'segm']))


def test_a_metric_of_another_number_of_classes():
    metric = SimpleNamespace(num_classes=5)
    with pytest.raises(UserError, match=r'num_classes=5 of .*, but the data have 2 classes'):
        check(metric)


@pytest.mark.parametrize(('topk', 'words'), [((1, 2), ''), ((1, 5), 'topk=5 of')])
def test_topk_of_mmactions_metric(topk, words):
    metric = SimpleNamespace(metric_options=dict(top_k_accuracy=dict(topk=topk)))
    if not words:
        check(metric)
        return
    with pytest.raises(UserError, match=words):
        check(metric)


class Clips(DataSet):
    """Videos whose pipeline gives inputs of a shape."""

    def __init__(self, shape):
        super().__init__((), [dict(filename='a.mp4')])
        self.pipeline = lambda info: dict(inputs=torch.zeros(shape))


def check_segments(shape, split, backbone=4, head=4):
    parts = dict(backbone=backbone, cls_head=head)
    model = SimpleNamespace(**{k: SimpleNamespace(num_segments=n) for k, n in parts.items()})
    check_clips(model, SimpleNamespace(dataset=Clips(shape)), split)


@pytest.mark.parametrize(('shape', 'refused'), [((4, 3, 8, 8), False), ((3, 8, 8), True)])
@pytest.mark.parametrize('size', [1, 2])
def test_a_batch_of_one_video_has_frames_enough_for_batch_norm(shape, refused, size):
    data = Clips(shape)
    data.infos *= 3
    batches = BatchSampler(SequentialSampler(data), size, drop_last=False)
    loader = SimpleNamespace(dataset=data, batch_size=size, batch_sampler=batches)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop.dataloader = loader
    network = ContextualResNet(18, num_classes=16, embed_dims=8, base_channels=8)
    if not refused:
        check_batches(loop, network)
        return
    with pytest.raises(UserError, match='cannot train on one image'):
        check_batches(loop, network)


def test_frames_that_are_the_segments():
    check_segments((4, 3, 8, 8), 'train')
    # Of a test the clips' scores are averaged.
    check_segments((8, 3, 8, 8), 'test')
    check_segments((5, 3, 8, 8), 'train', None, None)


@pytest.mark.parametrize(
    ('shape', 'split', 'head', 'words'),
    [
        ((4, 3, 8, 8), 'train', 2, 'backbone.num_segments is 4 and model.cls_head.num_segments is'),
        ((8, 3, 8, 8), 'train', 4, 'a.mp4 of train_dataloader gives 8 frames, but .* is 4'),
        ((6, 3, 8, 8), 'val', 4, 'a.mp4 of val_dataloader gives 6 frames'),
        ((1, 3, 4, 8, 8), 'train', 4, "input_format='NCHW' in FormatShape"),
    ],
)
def test_frames_that_are_not_the_segments(shape, split, head, words):
    with pytest.raises(UserError, match=words):
        check_segments(shape, split, head=head)


def test_a_video_that_is_skipped_in_training():
    clips = Clips((4, 3, 8, 8))
    clips.skip_broken, clips.pipeline = True, lambda info: 1 / 0
    model = SimpleNamespace(backbone=SimpleNamespace(num_segments=4))
    check_clips(model, SimpleNamespace(dataset=clips), 'train')


class LoadImage:
    """Stands in for the step that loads an image, 96 pixels wide."""

    def __call__(self, info):
        return {**info, 'ori_shape': (80, 96)}


def sized(*sizes, steps=None):
    infos = [dict(img_path=f'{i}.jpg', width=w, height=h) for i, (w, h) in enumerate(sizes)]
    data = DataSet((), infos, name='a.json')
    data.pipeline = SimpleNamespace(transforms=steps or [LoadImage()])
    return data


def test_images_of_their_stated_sizes():
    check_listed_sizes(sized((96, 80), (96, 80)), 'train')
    check_listed_sizes(sized((9, 8), steps=[lambda info: info]), 'train')


@pytest.mark.parametrize(
    ('size', 'words'),
    [
        ((80, 96), r'1.jpg is 96x80 \(turned, perhaps by its EXIF tag\), but listed as 80x96'),
        ((192, 160), '1.jpg is 96x80, but listed as 192x160'),
    ],
)
def test_images_of_other_sizes_than_stated(size, words):
    with pytest.raises(UserError, match=f'1 of 2 images of train_dataloader .*{words}'):
        check_listed_sizes(sized((96, 80), size), 'train')


def test_a_start_from_the_same_classes_in_another_order_is_a_warning(monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmctx.cli.agreement.classes.print_log', lambda text, *_: logged.append(text)
    )
    meta = dict(dataset_meta=dict(classes=['nut', 'bolt']))
    checked = Checked([Weights('a.pth', {})], {'a.pth': dict(meta=meta)})
    check_classes(DETECTOR, dict(train=[DataSet(('bolt', 'nut'))]), checked)
    assert 'class 0 is nut in the data of a.pth and bolt in train_dataloader' in logged[0]
    # Other classes are what a start is for.
    check_classes(DETECTOR, dict(train=[DataSet(('bolt', 'ant'))]), checked)
    assert len(logged) == 1


def test_looking_for_norms_leaves_the_mode_of_each_module():
    model = Part(neck=nn.BatchNorm1d(4), head=nn.BatchNorm1d(4))
    model.neck.eval()
    assert norm_of_vectors(model) == 'neck'
    assert [m.training for m in model.modules()] == [True, False, True]
