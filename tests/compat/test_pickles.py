"""Pickled annotation files: data comes through, code does not."""

import pickle
from collections import OrderedDict
from io import BytesIO

import mmengine
import numpy as np
import pytest
import torch
from hostile import HOSTILE, Call
from mmengine.fileio import LocalBackend

from mmctx.compat import install_runtime


@pytest.fixture(autouse=True)
def installed():
    install_runtime()


DATA = {
    'boxes': np.arange(8, dtype=np.float32).reshape(2, 4),
    'fortran': np.asfortranarray(np.arange(6).reshape(2, 3)),
    'none': np.zeros((0, 5)),
    'score': np.float64(0.5),
    'names': ['a', ('b', None), {1, 2}, frozenset([3])],
    'order': OrderedDict(first=1, second=b'\x00\xff'),
}


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read(protocol, tmp_path):
    (tmp_path / 'data.pkl').write_bytes(pickle.dumps(DATA, protocol))
    loaded = mmengine.load(tmp_path / 'data.pkl')
    assert list(loaded) == list(DATA)
    for name, value in DATA.items():
        if isinstance(value, np.ndarray):
            assert loaded[name].dtype == value.dtype
            np.testing.assert_array_equal(loaded[name], value)
        else:
            assert loaded[name] == value


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused(name, protocol, tmp_path):
    witness = tmp_path / 'witness'
    hostile = {'annotations': HOSTILE[name](f'touch {witness}')}
    (tmp_path / 'data.pkl').write_bytes(pickle.dumps(hostile, protocol))
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
        mmengine.load(tmp_path / 'data.pkl')
    assert not witness.exists()


def test_a_file_cannot_change_how_later_ones_are_read(tmp_path):
    # Pickle sets the second part of a pair given as state on the object itself: here on a class.
    changed = pickle.dumps((None, {'__setstate__': 1, '__new__': 1}), 2)[2:-1]
    for cls in (np.ndarray, np.dtype, set):
        (tmp_path / 'hostile.pkl').write_bytes(pickle.dumps(cls, 2)[:-1] + changed + b'b.')
        with pytest.raises(TypeError):
            mmengine.load(tmp_path / 'hostile.pkl')
    test_plain_data_is_read(2, tmp_path)


def test_a_data_set_names_the_refused_file(tmp_path):
    path = tmp_path / 'proposals.pkl'
    path.write_bytes(pickle.dumps(Call(print, 'run')))
    with pytest.raises(pickle.UnpicklingError, match=r'builtins\.print.*save its data as JSON'):
        mmengine.load(path, backend_args=None)
    assert LocalBackend().exists(path)


def test_tensors_of_predictions_are_read(tmp_path):
    predictions = [{'bboxes': torch.rand(3, 4), 'labels': torch.arange(3)[::2]}]
    mmengine.dump(predictions, tmp_path / 'out.pkl')
    (loaded,) = mmengine.load(tmp_path / 'out.pkl')
    for name, value in predictions[0].items():
        assert torch.equal(loaded[name], value)


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pickles_within_tensors_are_refused(name, tmp_path):
    witness, inner = tmp_path / 'witness', BytesIO()
    torch.save(HOSTILE[name](f'touch {witness}'), inner, _use_new_zipfile_serialization=False)
    hostile = Call(torch.storage._load_from_bytes, inner.getvalue())
    (tmp_path / 'data.pkl').write_bytes(pickle.dumps(hostile, 2))
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
        mmengine.load(tmp_path / 'data.pkl')
    assert not witness.exists()
