"""Pickled annotation files: data comes through, code does not."""

import pathlib
import pickle
import subprocess
import sys
from collections import OrderedDict
from io import BytesIO

import mmengine
import numpy as np
import pytest
import torch
from hostile import HOSTILE, Call
from mmdet.structures import DetDataSample
from mmengine.fileio import LocalBackend
from mmengine.structures import InstanceData

from mmctx.compat import guard_files


@pytest.fixture(autouse=True)
def installed():
    guard_files()


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


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_containers_of_openmmlab_are_read(protocol, tmp_path):
    """Proposals as mmdet's `DumpProposals` writes them, and whole predictions."""
    boxes, scores = np.ones((2, 4), np.float32), torch.rand(2)
    proposals = InstanceData(bboxes=boxes, scores=scores, metainfo=dict(img_shape=(4, 5)))
    sample = DetDataSample(pred_instances=proposals, metainfo=dict(img_id=3))
    path = tmp_path / 'proposals.pkl'
    path.write_bytes(pickle.dumps({'a.png': proposals, 'b.png': sample}, protocol))
    loaded = mmengine.load(path)
    for found in (loaded['a.png'], loaded['b.png'].pred_instances):
        assert type(found) is InstanceData and len(found) == 2 and found.img_shape == (4, 5)
        np.testing.assert_array_equal(found.bboxes, boxes)
        assert torch.equal(found[1:].scores, scores[1:])
    assert loaded['b.png'].img_id == 3


def test_a_file_cannot_change_the_containers(tmp_path):
    changed = pickle.dumps((None, {'__len__': 1, '__init__': 1}), 2)[2:-1]
    hostile = pickle.dumps(InstanceData, 2)[:-1] + changed + b'b.'
    (tmp_path / 'hostile.pkl').write_bytes(hostile)
    with pytest.raises((TypeError, pickle.UnpicklingError)):
        mmengine.load(tmp_path / 'hostile.pkl')
    assert len(InstanceData(a=[1, 2])) == 2


def test_a_program_that_only_imports_mmctx_reads_its_own_pickles(tmp_path):
    """The guard is for mmctx's own runs."""
    (tmp_path / 'own.pkl').write_bytes(pickle.dumps(pathlib.PurePosixPath('a/b')))
    code = (
        'import mmctx.models.backbones, mmctx.compat, mmengine; path = "own.pkl"\n'
        'print(mmengine.load(path)); mmctx.compat.guard_files()\n'
        'try: mmengine.load(path)\n'
        'except Exception as error: print(type(error).__name__)'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:] == ['a/b', 'RefusedPickle'], done.stderr
