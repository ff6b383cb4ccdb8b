"""Runs of all frameworks, and what ends them: a refusal in one line, a fault with its traceback."""

import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from forked import Command
from mmengine.config import Config

from mmctx.cli.blame import names_key, upstream_errors_recognised
from mmctx.cli.config import load_config
from mmctx.cli.failures import LastBatch
from mmctx.cli.running import build_model, build_runner, run
from mmctx.cli.switches import set_testing, set_training
from mmctx.cli.tool import run_tool
from mmctx.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'engine'))

from toy_training import ToyTraining


def unpack():
    first, second = 1, 2, 3
    return first, second


class FakeRunner:
    def __init__(self, step):
        self.train = step
        self.hooks = [LastBatch()]


def test_an_image_that_a_worker_cannot_read_is_named():
    def step():
        raise AssertionError('Caught AssertionError in worker\nfailed to load image: a/1.jpg\n...')

    with pytest.raises(UserError, match=r'^failed to load image: a/1.jpg$') as caught:
        run(FakeRunner(step), 'train')
    assert caught.value.one_rank


def test_the_images_of_a_refused_batch_are_named():
    sample = Config(dict(img_path='a/1.jpg'))

    def refuse():
        runner.hooks[0].before_train_iter(None, 0, dict(inputs=[], data_samples=[sample]))
        raise UserError('20x20 is too small')

    runner = FakeRunner(refuse)
    with pytest.raises(UserError, match=r'20x20 is too small \(images of this batch: a/1.jpg\)'):
        run(runner, 'train')


def test_a_fault_while_running_stays_as_it_is():
    with pytest.raises(ValueError, match='too many values to unpack') as caught:
        run(FakeRunner(unpack), 'train')
    assert type(caught.value) is ValueError


def test_an_argument_that_no_module_takes_is_named_if_the_config_has_it():
    cfg = Config(dict(model=dict(parts=[dict(perset='paper')])))
    message = "Net.__init__() got an unexpected keyword argument 'perset'"
    with pytest.raises(UserError, match='perset'), upstream_errors_recognised(cfg):
        raise TypeError(message)
    with pytest.raises(TypeError), upstream_errors_recognised(cfg):
        raise TypeError(message.replace('perset', 'preset'))
    assert names_key(cfg.to_dict(), 'perset') and not names_key(cfg.to_dict(), 'paper')


def test_a_fault_while_building_stays_as_it_is():
    with pytest.raises(ValueError) as caught, upstream_errors_recognised(Config()):
        unpack()
    assert type(caught.value) is ValueError


def test_a_refusal_is_one_line_and_status_two(capsys, monkeypatch):
    monkeypatch.setattr('mmctx.cli.tool.SECONDS_FOR_THE_FIRST_RANK', 0)

    def fail(one_rank):
        raise UserError('first\n  second', one_rank=one_rank)

    for rank, one_rank, expected in [(0, False, 1), (1, False, 0), (1, True, 1)]:
        monkeypatch.setenv('LOCAL_RANK', str(rank))
        with pytest.raises(SystemExit) as caught:
            run_tool(lambda one_rank=one_rank: fail(one_rank))
        assert caught.value.code == 2
        assert capsys.readouterr().err == 'error: first second\n' * expected
    with pytest.raises(ValueError, match='too many values'):
        run_tool(unpack)


PLANTED = """
import {module} as module

fault = dict(__name__=module.__name__)
exec('def broken(*args):\\n    first, second = 1, 2, 3', fault)
"""


@pytest.mark.parametrize(
    ('module', 'effect'),
    [
        pytest.param('mmctx.cli.config', "fault['broken']()", id='reading the config'),
        pytest.param('mmctx.engine.runner', "module.numbered = fault['broken']", id='building'),
        pytest.param(
            'mmctx.engine.hooks.exact_resume_hook',
            "module.derive_seed = fault['broken']",
            id='training',
        ),
    ],
)
def test_a_fault_of_mmctx_keeps_its_traceback_and_status_one(module, effect, repo, tmp_path):
    """`too many values to unpack`, a ValueError like any refusal, in a module of mmctx."""
    training = ToyTraining(repo, tmp_path, epochs=1)
    config = tmp_path / 'toy.py'
    config.write_text(config.read_text().replace("['toy_run']", "['toy_run', 'planted']"))
    (tmp_path / 'planted.py').write_text(PLANTED.format(module=module) + effect)
    training.env['PYTHONPATH'] += f':{tmp_path}'
    status, log = training.run()
    assert status == 1, log
    assert 'Traceback (most recent call last)' in log
    assert log.rstrip().endswith('ValueError: too many values to unpack (expected 2)')


def test_a_refusal_of_mmctx_in_a_config_is_one_line_and_status_two(repo, tmp_path):
    training = ToyTraining(repo, tmp_path, epochs=1)
    training.command += ['--cfg-options', 'model.type=EngineToyModle']
    status, log = training.run()
    assert status == 2, log
    assert log.splitlines()[-1].startswith('error: EngineToyModle is not in the ')
    assert 'Traceback' not in log


@pytest.mark.parametrize(
    ('option', 'everywhere'),
    [('train_cfg.max_epochs=0', True), ('train_dataloader.batch_size=0', False)],
    ids=['what all processes find', 'what the first one finds for all'],
)
def test_a_refusal_of_two_processes_is_one_line(option, everywhere, repo, tmp_path):
    training = ToyTraining(repo, tmp_path, epochs=1)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    env = dict(training.env, MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE='2')
    arguments = [*training.command, '--launcher', 'pytorch', '--cfg-options', option]
    commands = []
    for rank in '01':
        (tmp_path / rank).mkdir()
        of_rank = dict(env, RANK=rank, LOCAL_RANK=rank, CUDA_VISIBLE_DEVICES='-1')
        commands.append(Command(arguments, tmp_path, of_rank, tmp_path / rank))
    assert commands[0].wait(100) == 2, commands[0].printed
    if not everywhere:
        # It waits for the first one, and the launcher ends it.
        commands[1].process.kill()
    assert commands[1].wait(100) == (2 if everywhere else -signal.SIGKILL)
    logs = [command.printed for command in commands]
    lines = [line for log in logs for line in log[1].splitlines() if line.startswith('error:')]
    assert len(lines) == 1 and option.partition('=')[0] in lines[0]
    assert 'Traceback' not in str(logs) and not list(tmp_path.rglob('*.pth'))


def test_classifier_is_trained_and_tested(tmp_path, monkeypatch):
    """mmpretrain's scope through the same functions: two iterations on random images."""
    import cv2
    import numpy as np

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in 'ab':
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(f'images/{name}/{i}.png', rng.integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / 'config.py').write_text("""
default_scope = 'mmpretrain'
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
              dataset=dict(type='CustomDataset', data_root='images', pipeline=pipeline))
train_dataloader, test_dataloader = loader, loader
train_cfg, test_cfg = dict(by_epoch=True, max_epochs=1), dict()
test_evaluator = dict(type='Accuracy', topk=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[8] * 4)),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=8))
""")
    cfg = load_config('config.py')
    set_training(cfg)
    model = run(build_runner(cfg, 'train'), 'train')
    saved = torch.load('work_dirs/config/epoch_1.pth', weights_only=False)['state_dict']
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())

    cfg = load_config('config.py')
    set_testing(cfg, 'work_dirs/config/epoch_1.pth', out='out.pkl')
    metrics = run(build_runner(cfg, 'test'), 'test')
    assert 0 <= metrics['accuracy/top1'] <= 100
    assert (tmp_path / 'out.pkl').is_file()


def test_normalisation_that_a_config_states_beside_its_model_reaches_it(repo):
    cfg = load_config(str(repo / 'configs' / 'ctx_resnet_coloured_shapes.py'))
    model = build_model(cfg)
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53]
    )
    assert 'data_preprocessor' not in cfg.model
