"""Videos in mmaction2's pipelines: lists, broken files, clips, and what is measured with them."""

import logging

import numpy as np
import pytest
import torch
from mmaction.datasets.transforms import SampleFrames
from mmaction.evaluation import AccMetric
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmctx.datasets.video import VideoDataset
from mmctx.datasets.video_file import VideoError
from mmctx.datasets.video_list import read_video_list, write_video_list
from mmctx.datasets.video_transforms import SampleShiftedClips

PIPELINE = [
    dict(type='mmctx.PyAVInit'),
    dict(type='mmaction.SampleFrames', clip_len=1, num_clips=3, test_mode=True),
    dict(type='mmctx.PyAVDecode'),
    dict(type='mmaction.Resize', scale=(16, 16), keep_ratio=False),
    dict(type='mmaction.FormatShape', input_format='NCHW'),
    dict(type='mmaction.PackActionInputs'),
]


@pytest.fixture
def make(clips, damaged, tmp_path):
    """A data set of the first clips and of damaged ones, in a folder with a space in its name."""
    folder = tmp_path / 'some videos'
    folder.mkdir()

    def make(good=2, broken=(), **options):
        videos = [*clips[:good], *(damaged / name for name in broken)]
        for video in videos:
            (folder / video.name).symlink_to(video)
        names = [(f'some videos/{video.name}', number) for number, video in enumerate(videos)]
        write_video_list(str(tmp_path / 'list.txt'), names)
        options = dict(data_root=str(tmp_path), pipeline=PIPELINE) | options
        return VideoDataset('list.txt', **options)

    return make


@pytest.fixture
def log(monkeypatch):
    """Messages of the current logger."""
    messages = []
    logger = MMLogger.get_instance('videos')
    monkeypatch.setattr(logger, 'handle', lambda record: messages.append(record.getMessage()))
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    logger.setLevel(logging.INFO)
    return messages


def test_reads_videos(make):
    data = make(2)
    assert len(data) == 2
    for number in range(2):
        sample = data[number]
        assert sample['inputs'].shape == (3, 3, 16, 16)
        assert sample['data_samples'].gt_label.item() == number
    assert 'test_mode' in repr(data.pipeline)


def test_training_names_broken_videos_and_takes_others(make, log):
    data = make(1, ('half.avi', 'text.mp4', 'sound.mp4'))
    for number in range(4):
        assert data[number]['data_samples'].gt_label.item() == 0
    for name in ('half.avi', 'text.mp4', 'sound.mp4'):
        lines = [line for line in log if f'{name} is not a readable video: ' in line]
        assert lines and all(line.endswith('; another one takes its place') for line in lines)


def test_evaluation_ends_with_the_name_of_a_broken_video(make):
    data = make(1, ('half.avi',), test_mode=True)
    assert data[0]['data_samples'].gt_label.item() == 0
    with pytest.raises(VideoError, match=r'some videos/half\.avi is not a readable video: '):
        data[1]
    with pytest.raises(ValueError, match='test_mode'):
        VideoDataset('list.txt', PIPELINE, test_mode=True, skip_broken=True)
    data.test_mode = False
    with pytest.raises(VideoError, match='half'):
        data[1]


def test_nothing_but_broken_videos_ends(make, log):
    data = make(0, ('half.avi', 'text.mp4'), max_refetch=5)
    with pytest.raises(VideoError, match=r'and so were the 5 videos of .*list\.txt'):
        data[0]
    assert len(log) == 5


def test_good_videos_between_broken_ones_start_the_count_again(make):
    data = make(1, ('half.avi',), max_refetch=1)
    for _ in range(3):
        assert data.prepare_data(1) is None
        assert data.prepare_data(0) is not None


@pytest.mark.parametrize('workers', [0, 2])
def test_a_broken_video_stays_one_line_from_a_worker_too(make, workers):
    data = make(1, ('half.avi',), test_mode=True)
    loader = DataLoader(data, num_workers=workers, collate_fn=pseudo_collate)
    iterator = iter(loader)
    with pytest.raises(VideoError) as caught:
        list(iterator)
    if workers:
        # Left to the garbage collector, it waits ten seconds for its workers.
        iterator._shutdown_workers()
    message = str(caught.value)
    assert message.startswith('/') and 'Error' not in message and '\n' not in message
    assert '/some videos/half.avi is not a readable video: it is damaged' in message


def test_a_fault_of_the_pipeline_is_not_blamed_on_the_video(make):
    def fault(results):
        raise RuntimeError('of the pipeline')

    data = make(1, pipeline=[*PIPELINE[:3], fault])
    with pytest.raises(RuntimeError, match='of the pipeline'):
        data[0]


def test_lists(tmp_path):
    path = str(tmp_path / 'list.txt')
    videos = [('playing a guitar/x 1.mp4', 3), ('y.avi', 0), (' z\t1.mp4', 11)]
    write_video_list(path, videos)
    assert read_video_list(path) == videos
    (tmp_path / 'list.txt').write_text('a b.mp4\t5\r\n\r\nc.mp4   1  \n')
    assert read_video_list(path, 6) == [('a b.mp4', 5), ('c.mp4', 1)]
    (tmp_path / 'list.txt').write_text('a b.mp4, 5\n')
    assert read_video_list(path, delimiter=',') == [('a b.mp4', 5)]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'a.mp4 1\nb c.mp4\n',
            "line 2: expected a file and the number of its class, got 'b c.mp4'",
        ),
        ('a.mp4 1\n7\n', "line 2: expected a file .* got '7'"),
        ('a.mp4 1.5\n', 'line 1: expected'),
        ('a.mp4 4\n\nb.mp4 5\n', 'line 3: label 5, but 5 classes are numbered from 0'),
        ('a.mp4 -1\n', 'line 1: label -1, but 5 classes'),
        ('\n', 'lists no videos'),
    ],
)
def test_mistakes_in_lists_are_named(tmp_path, text, message):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(ValueError, match=message):
        VideoDataset(str(tmp_path / 'list.txt'), PIPELINE, num_classes=5)


def test_a_list_that_is_not_text(tmp_path):
    (tmp_path / 'list.txt').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match=r'list\.txt is not a list of videos'):
        read_video_list(str(tmp_path / 'list.txt'))


def test_several_labels_are_read_as_mmaction2_does(clips, tmp_path):
    (tmp_path / 'list.txt').write_text(f'{clips[0]} 0 2\n')
    data = VideoDataset(str(tmp_path / 'list.txt'), PIPELINE, multi_class=True, num_classes=3)
    assert data[0]['data_samples'].gt_label.tolist() == [1, 0, 1]


def sample(transform, frames):
    return transform(dict(total_frames=frames, start_index=0))['frame_inds']


@pytest.mark.parametrize('frames', [1, 5, 16, 83, 303])
def test_one_shifted_clip_is_the_usual_one(frames):
    usual = SampleFrames(clip_len=1, num_clips=16, test_mode=True)
    assert np.array_equal(sample(SampleShiftedClips(16, shifts=1), frames), sample(usual, frames))


@pytest.mark.parametrize('frames', [1, 5, 83, 160, 303])
def test_shifted_clips(frames):
    indices = sample(SampleShiftedClips(16, shifts=10), frames).reshape(10, 16)
    assert (indices >= 0).all() and (indices < frames).all()
    assert (np.diff(indices, axis=1) >= 0).all()
    part = frames / 16
    expected = [[int(part * (i + (j + 0.5) / 10)) for i in range(16)] for j in range(10)]
    assert np.array_equal(indices, expected)
    if frames == 160:
        assert np.unique(indices).size == 160


def test_shifted_clips_refuse():
    for options in (dict(shifts=0), dict(clip_len=2)):
        with pytest.raises(ValueError, match='clip_len must be 1 and shifts at least 1'):
            SampleShiftedClips(16, **options)


def test_the_pipelines_of_kinetics(repo, clips, tmp_path):
    cfg = Config.fromfile(repo / 'configs' / '_base_' / 'kinetics400.py')
    assert 'decord' not in cfg.pretty_text.lower()
    shortest = next(clip.name for clip in clips if clip.name.startswith('Truman'))
    write_video_list(str(tmp_path / 'list.txt'), [(shortest, 0)])
    shapes = {'train': (16, 3, 224, 224), 'val': (16, 3, 224, 224), 'tta': (480, 3, 256, 256)}
    for name, shape in shapes.items():
        data = VideoDataset(
            str(tmp_path / 'list.txt'),
            [_scoped(step) for step in cfg[f'{name}_pipeline']],
            data_prefix=dict(video=str(clips[0].parent)),
        )
        assert data[0]['inputs'].shape == shape
        assert data[0]['inputs'].dtype == torch.uint8


def _scoped(step):
    step = dict(step)
    scope = step.pop('_scope_', 'mmaction')
    return dict(step, type=step['type'] if '.' in step['type'] else f'{scope}.{step["type"]}')


def test_top_1_and_top_5_are_measured():
    metric = AccMetric()
    scores = torch.eye(6).roll(1, 1) + 0.01 * torch.arange(6)
    for label in range(6):
        sample = ActionDataSample().set_gt_label(label)
        # Half of the predictions are right.
        sample.set_pred_score(scores[label] if label % 2 else torch.eye(6)[label])
        metric.process(None, [sample.to_dict()])
    figures = metric.evaluate(6)
    assert figures['acc/top1'] == figures['acc/mean1'] == 0.5
    assert 0.5 < figures['acc/top5'] <= 1
