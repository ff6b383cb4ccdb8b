"""A file that carries code is refused in one line by every way into the tools, and never run."""

import os
import pickle

import pytest
import torch

from mmctx.checkpoints.reading import read_checkpoint
from mmctx.cli.running import build_runner
from mmctx.cli.switches import set_testing, set_training
from mmctx.errors import UserError
from mmctx.weights.files import read_state


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f'touch {self.witness}',)


@pytest.fixture
def witness(tmp_path):
    return tmp_path / 'witness'


@pytest.fixture
def hostile(tmp_path, witness):
    """A checkpoint that looks like one of mmengine's but for one entry of its state."""
    path = tmp_path / 'hostile.pth'
    contents = dict(
        meta=dict(epoch=1, iter=1, evil=Hostile(witness)),
        message_hub={},
        state_dict={'backbone.weight': torch.zeros(1)},
    )
    torch.save(contents, path)
    return path


def resume(cfg, path):
    set_training(cfg, resume=path)
    return 'train'


def auto_resume(cfg, path):
    os.makedirs(cfg.work_dir)
    with open(f'{cfg.work_dir}/last_checkpoint', 'w') as file:
        file.write(path)
    set_training(cfg, resume='auto')
    return 'train'


def start_from(cfg, path):
    cfg.load_from = path
    return 'train'


def pretrained(cfg, path):
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    return 'train'


def test_checkpoint(cfg, path):
    set_testing(cfg, path)
    return 'test'


test_checkpoint.__test__ = False


@pytest.mark.parametrize('way', [resume, auto_resume, start_from, pretrained, test_checkpoint])
def test_tools_run_no_code_of_a_checkpoint(way, hostile, witness, tiny_coco, load, tmp_path):
    cfg = load()
    cfg.work_dir = str(tmp_path / 'work')
    mode = way(cfg, str(hostile))
    with pytest.raises(UserError, match=r'hostile\.pth') as error:
        build_runner(cfg, mode)
    assert '\n' not in str(error.value)
    if way is not auto_resume:
        assert 'is refused: besides weights it holds' in str(error.value)
        assert 'system' in str(error.value)
    assert not witness.exists()


def test_converters_run_no_code_of_a_checkpoint(hostile, witness):
    with pytest.raises(ValueError, match=r'hostile\.pth is refused: besides weights it holds'):
        read_state(hostile)
    assert not witness.exists()


def test_data_sets_run_no_code_of_an_annotation_file(witness, tiny_coco, load):
    """mmdet reads proposals, and every data set its annotations, by the ending of the file."""
    cfg = load()
    path = tiny_coco.root / 'proposals.pkl'
    path.write_bytes(pickle.dumps(Hostile(witness)))
    cfg.train_dataloader.dataset.update(proposal_file='proposals.pkl')
    set_training(cfg)
    with pytest.raises(UserError, match=r'besides data it holds \w+\.system'):
        build_runner(cfg, 'train')
    assert not witness.exists()


def test_hostile_checkpoint_does_run_code_where_nothing_protects(hostile, witness):
    torch.load(hostile, weights_only=False)
    assert witness.exists()
    with pytest.raises(UserError, match='is refused'):
        read_checkpoint(hostile)
