"""Loading and resuming mmengine's checkpoints, and refusing hostile ones."""

import os
import pickle
import re

import numpy as np
import pytest
import torch
from hostile import HOSTILE, SCALAR, Call
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch.utils.data import Dataset

from mmctx.compat import guard_files


@pytest.fixture(autouse=True)
def installed():
    guard_files()


class CompatToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.linear(inputs).square().mean()}


class Points(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {'inputs': torch.tensor([index / 8, 1.0])}


def make_runner(work_dir, max_iters, resume=False, load_from=None):
    return Runner(
        CompatToyModel(),
        str(work_dir),
        train_dataloader={
            'batch_size': 2,
            'dataset': Points(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        train_cfg={'by_epoch': False, 'max_iters': max_iters},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 4},
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1},
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1, 'by_epoch': False},
        },
        resume=resume,
        load_from=load_from,
        experiment_name=f'{work_dir.name}_{max_iters}_{resume}',
        log_level='ERROR',
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A runner that trained for three iterations, and its work directory."""
    work_dir = tmp_path_factory.mktemp('trained')
    runner = make_runner(work_dir, max_iters=3)
    runner.message_hub.update_info('best_score', np.float64(0.75))
    runner.train()
    return runner, work_dir


def test_plain_torch_load_refuses_the_checkpoint(trained):
    _, work_dir = trained
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(work_dir / 'iter_3.pth')
    assert 'message_hub' in CheckpointLoader.load_checkpoint(str(work_dir / 'iter_3.pth'))
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(work_dir / 'iter_3.pth')


def test_history_is_restored_as_it_was(trained):
    runner, work_dir = trained
    checkpoint = CheckpointLoader.load_checkpoint(str(work_dir / 'iter_3.pth'))
    scalars = checkpoint['message_hub']['log_scalars']
    assert {'train/loss', 'train/lr'} <= scalars.keys()
    for name, history in scalars.items():
        expected = runner.message_hub.get_scalar(name)
        assert type(history) is HistoryBuffer
        assert [type(part) for part in history.data] == [np.ndarray] * 2
        for part, expected_part in zip(history.data, expected.data):
            assert part.dtype == expected_part.dtype
            np.testing.assert_array_equal(part, expected_part)
        assert history.statistics('mean') == expected.mean()
    score = checkpoint['message_hub']['runtime_info']['best_score']
    assert type(score) is np.float64
    assert score == 0.75


def test_weights_are_loaded(trained):
    runner, work_dir = trained
    model = CompatToyModel()
    load_checkpoint(model, str(work_dir / 'iter_3.pth'))
    assert torch.equal(model.linear.weight, runner.model.linear.weight)


class RecordStart(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.iters = [*getattr(self, 'iters', []), runner.iter]


def test_resume_continues_the_run(trained, tmp_path):
    _, work_dir = trained
    whole = make_runner(tmp_path / 'whole', max_iters=5)
    whole.train()
    last = str(work_dir / 'iter_3.pth')
    resumed = make_runner(tmp_path / 'resumed', max_iters=5, resume=True, load_from=last)
    record = RecordStart()
    resumed.register_hook(record)
    resumed.train()
    assert record.iters == [3, 4]
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())
    losses = [r.message_hub.get_scalar('train/loss').data[0] for r in (resumed, whole)]
    np.testing.assert_allclose(*losses)
    assert len(losses[0]) == 5


def test_arrays_outside_the_history_are_saved_as_numpys_own(tmp_path):
    values = {
        'ints': np.arange(6, dtype=np.int32).reshape(2, 3),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big_endian': np.array([1.5, 2.5], dtype='>f4'),
        'flags': np.array([True, False]),
        'empty': np.zeros((0, 4), np.float16),
        'scalar': np.int64(7),
    }
    torch.save(values, tmp_path / 'first.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'first.pth'))
    torch.save(loaded, tmp_path / 'second.pth')
    again = torch.load(tmp_path / 'second.pth', weights_only=False)
    assert type(again['ints']) is np.ndarray
    for name, value in values.items():
        for result in (loaded[name], again[name]):
            # numpy restores short arrays in the machine's own byte order.
            assert result.dtype.newbyteorder('=') == value.dtype.newbyteorder('=')
            np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_checkpoints_of_either_numpy_are_read(core, tmp_path):
    path = tmp_path / 'old.pth'
    values = {'history': HistoryBuffer([1.0, 2.0], [1, 1]), 'x': np.float32(3)}
    torch.save(values, path, _use_new_zipfile_serialization=False)
    renamed, count = re.subn(rb'numpy\._?core\.multi', f'{core}.multi'.encode(), path.read_bytes())
    assert count == 2
    path.write_bytes(renamed)
    loaded = CheckpointLoader.load_checkpoint(str(path))
    assert loaded['history'].mean() == 1.5
    assert loaded['x'] == 3


def test_a_file_cannot_replace_the_statistics_of_the_process(tmp_path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    history._statistics_methods = {'mean': HistoryBuffer.max}
    torch.save(history, tmp_path / 'swapped.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'swapped.pth'))
    assert loaded.statistics('mean') == HistoryBuffer([1.0, 3.0], [1, 1]).statistics('mean') == 2


def test_numpy_classes_that_the_user_allowed_are_left_alone(tmp_path):
    values = {'history': HistoryBuffer([1.0, 2.0], [1, 1]), 'names': np.array(['a'], dtype=object)}
    torch.save(values, tmp_path / 'objects.pth')
    own = [np.ndarray, np.dtype, np.array(0.0).__reduce__()[0]]
    own += [type(np.dtype(code)) for code in ('f8', 'i8', 'O')]
    with torch.serialization.safe_globals(own):
        loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'objects.pth'))
    assert loaded['history'].mean() == 1.5
    assert loaded['names'].tolist() == ['a']


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_checkpoints_are_refused(name, tmp_path):
    witness = tmp_path / 'witness'
    path = tmp_path / 'hostile.pth'
    torch.save({'state_dict': {}, 'meta': HOSTILE[name](f'touch {witness}')}, path)
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        CheckpointLoader.load_checkpoint(str(path))
    assert not witness.exists()


@pytest.mark.parametrize('name', ['os.system', 'eval', 'getattr chain'])
def test_the_hostile_files_do_act_without_protection(name, tmp_path):
    witness = tmp_path / 'witness'
    torch.save(HOSTILE[name](f'touch {witness}'), tmp_path / 'hostile.pth')
    torch.load(tmp_path / 'hostile.pth', weights_only=False)
    assert witness.exists()


def test_state_of_a_dtype_is_not_set(tmp_path):
    has_object_flags = (3, '<', None, None, None, -1, -1, 63)
    dtype = Call(np.dtype, 'f8', False, False, state=has_object_flags)
    torch.save(Call(SCALAR, dtype, bytes(8)), tmp_path / 'flags.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'flags.pth'))
    assert loaded == 0
    assert not loaded.dtype.hasobject
    assert np.dtype('f8').flags == 0


def test_a_downloaded_checkpoint_is_not_run(tmp_path, monkeypatch):
    """`torch.hub` asks for everything in a file; here it is in its cache already."""
    witness = tmp_path / 'witness'
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    torch.save(HOSTILE['os.system'](f'touch {witness}'), cache / 'hostile.pth')
    with pytest.raises(pickle.UnpicklingError, match='Weights only'):
        CheckpointLoader.load_checkpoint('https://no.host.invalid/hostile.pth')
    assert not witness.exists()
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_the_config_in_a_checkpoint_is_not_run(trained, tmp_path):
    """mmengine's `resume` would run it as a Python file."""
    _, work_dir = trained
    witness = tmp_path / 'witness'
    checkpoint = CheckpointLoader.load_checkpoint(str(work_dir / 'iter_3.pth'))
    checkpoint['meta']['config'] = f'open({str(witness)!r}, "w").close()'
    torch.save(checkpoint, tmp_path / 'hostile.pth')
    resumed = make_runner(tmp_path / 'run', 5, resume=True, load_from=str(tmp_path / 'hostile.pth'))
    resumed.train()
    assert resumed.iter == 5
    assert not witness.exists()


def test_loads_where_users_have_turned_the_protection_off(tmp_path, monkeypatch):
    """torch refuses both of its variables at once; the user's is left as it was."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    torch.save({'state_dict': {'w': torch.ones(2)}}, tmp_path / 'w.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'w.pth'), 'cpu')
    assert torch.equal(loaded['state_dict']['w'], torch.ones(2))
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
