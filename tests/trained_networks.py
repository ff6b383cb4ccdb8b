"""Fixtures: checkpoints of small networks, as trainings leave them, and pictures to show them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from forked import ENVIRONMENT, Command
from PIL import Image

CLASSIFIER = """
_base_ = 'mmctx::ctx_resnet50_in1k.py'
classes = 6
model = dict(
    data_preprocessor=dict(num_classes=classes),
    backbone=dict(depth=18, stem_channels=8, base_channels=8, num_classes=classes, init_cfg=None))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=64, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
RECOGNIZER = """
_base_ = 'mmctx::tsm_ctx_resnet50_k400.py'
pretrained = None
model = dict(
    backbone=dict(
        depth=18, stem_channels=8, base_channels=8, num_segments=4, num_classes=20, init_cfg=None,
        considered=(10, 4, 2)),
    cls_head=dict(num_classes=3, in_channels=64, num_segments=4))
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=4, test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 32)),
    dict(type='CenterCrop', crop_size=32),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs')]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def run_python(code, *arguments, cwd):
    """Run code in a new interpreter, which knows of mmctx what the code imports; its last line."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def write_checkpoint(folder, text, classes):
    """A config file, and a checkpoint with all that mmengine puts into one."""
    from mmengine.config import Config
    from mmengine.logging import HistoryBuffer

    from mmctx.cli.running import build_model

    folder.mkdir()
    (folder / 'config.py').write_text(text)
    cfg = Config.fromfile(folder / 'config.py')
    # Before the model is built, which adds defaults.
    stored = cfg.pretty_text
    torch.manual_seed(0)
    model = build_model(cfg)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    losses = HistoryBuffer([1.0, 0.5], [1, 1])
    checkpoint = dict(
        meta=dict(cfg=stored, dataset_meta=dict(classes=classes), epoch=1, iter=2),
        state_dict=model.state_dict(),
        message_hub=dict(log_scalars=dict(loss=losses), runtime_info={}, resumed_keys={}),
    )
    torch.save(checkpoint, folder / 'epoch_1.pth')
    return folder


@pytest.fixture(scope='session')
def classifier(tmp_path_factory):
    """Folder with config.py and epoch_1.pth of a classifier of six classes."""
    folder = tmp_path_factory.mktemp('use') / 'classifier'
    return write_checkpoint(folder, CLASSIFIER, ('ant', 'bee', 'cat', 'dog', 'eel', 'fox'))


@pytest.fixture(scope='session')
def recognizer(tmp_path_factory):
    """Folder with config.py and epoch_1.pth of a recognizer of three actions."""
    pytest.importorskip('mmaction')
    folder = tmp_path_factory.mktemp('use') / 'recognizer'
    return write_checkpoint(folder, RECOGNIZER, None)


@pytest.fixture(scope='session')
def detector(repo, tmp_path_factory):
    """Folder of a short training of the demo by tools/train.py: config.py and epoch_1.pth."""
    folder = tmp_path_factory.mktemp('use')
    tools = repo / 'tools'
    options = (
        'train_cfg.max_epochs=1 train_dataloader.dataset.indices=8 '
        'val_dataloader.dataset.indices=4 model.test_cfg.rcnn.max_per_img=5 '
        'model.test_cfg.rcnn.score_thr=0.0 default_hooks.logger.interval=1'
    )
    for command in (
        [tools / 'dataset_converters/render_shapes.py', 'shapes', '--num-train=8', '--num-val=4'],
        [
            *(tools / 'train.py', repo / 'configs/mask_rcnn_ctx_convnext_shapes.py'),
            *('--work-dir', 'detector', '--cfg-options', *options.split()),
        ],
    ):
        env = {**ENVIRONMENT, 'SHAPES_ROOT': str(folder / 'shapes')}
        result = Command(command, folder, env, tmp_path_factory.mktemp('printed')).completed(300)
        assert result.returncode == 0, result.stderr
    written = folder / 'detector' / 'mask_rcnn_ctx_convnext_shapes.py'
    return written.rename(written.with_name('config.py')).parent


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """A folder of five images of different sizes, one in a folder of its own."""
    folder = tmp_path_factory.mktemp('pictures')
    (folder / 'more').mkdir()
    random = np.random.default_rng(0)
    sizes = {'a.jpg': (80, 64), 'b.png': (64, 96), 'c.JPEG': (70, 70), 'more/d.jpg': (64, 64)}
    for name, (height, width) in sizes.items():
        pixels = random.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(folder / name)
    (folder / 'notes.txt').write_text('no picture')
    return folder


@pytest.fixture(scope='session')
def clip(tmp_path_factory):
    """A video of eight frames."""
    av = pytest.importorskip('av')
    path = tmp_path_factory.mktemp('videos') / 'clip.mp4'
    random = np.random.default_rng(0)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for _ in range(8):
            pixels = random.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(stream.encode())
    return path


def read_json(path):
    """Contents of a JSON file."""
    return json.loads(path.read_text())
