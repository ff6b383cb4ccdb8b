"""Checkpoint files are read whole or refused, and handed on instead of read again."""

import pickle

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmctx.checkpoints.reading import UnreadableCheckpoint, read_checkpoint, served_from_memory
from mmctx.compat import install_runtime


@pytest.fixture
def path(tmp_path):
    torch.save({'state_dict': {'weight': torch.arange(1000.0)}}, tmp_path / 'w.pth')
    return tmp_path / 'w.pth'


def test_weights_are_read_onto_the_cpu(path):
    assert torch.equal(read_checkpoint(path)['state_dict']['weight'], torch.arange(1000.0))


def test_files_of_before_pytorch_1_6_are_read(path):
    contents = {'weight': torch.ones(3)}
    torch.save(contents, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(path)['weight'], torch.ones(3))


def test_a_folder(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match='is a folder: name a file in it'):
        read_checkpoint(tmp_path)


def test_config_in_a_checkpoint_is_dropped(path):
    torch.save(dict(meta=dict(config='raise SystemExit', epoch=1), state_dict={}), path)
    assert read_checkpoint(path)['meta'] == dict(epoch=1)


@pytest.mark.parametrize(
    ('contents', 'reason'),
    [
        (None, 'does not exist'),
        (b'', 'is damaged or not a PyTorch checkpoint'),
        (b'<html>404</html>', 'is damaged or not a PyTorch checkpoint'),
        (pickle.dumps(print, protocol=2), 'is refused: besides weights it holds '),
    ],
)
def test_other_files_are_refused_with_the_reason(contents, reason, path):
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(UnreadableCheckpoint) as caught:
        read_checkpoint(path)
    assert caught.value.reason.startswith(reason)
    assert str(caught.value) == f'{path} {caught.value.reason}'


def test_wrong_checksum_is_refused(path):
    contents = bytearray(path.read_bytes())
    middle = contents.index(torch.arange(500.0, 520.0).numpy().tobytes())
    contents[middle] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UnreadableCheckpoint, match='checksums are wrong'):
        read_checkpoint(path)


def test_contents_other_than_a_dict_are_refused(path):
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UnreadableCheckpoint, match='holds list, not weights'):
        read_checkpoint(path)


def test_mmengine_takes_what_was_read_before(path):
    install_runtime()
    contents = read_checkpoint(path)
    path.unlink()
    with served_from_memory({str(path): contents}):
        assert CheckpointLoader.load_checkpoint(str(path)) is contents
    with pytest.raises(FileNotFoundError):
        CheckpointLoader.load_checkpoint(str(path))


def test_processes_that_meet_for_a_download_are_not_kept_from_it(path, monkeypatch):
    install_runtime()
    monkeypatch.setattr('mmctx.checkpoints.reading.is_distributed', lambda: True)
    seen = []
    loaders = dict(CheckpointLoader._schemes)
    monkeypatch.setattr(CheckpointLoader, '_schemes', loaders)

    def load_from_http(filename, map_location=None):
        seen.append(filename)
        return {}

    loaders['http://'] = load_from_http
    with served_from_memory({'http://x/w.pth': {'weight': 1}}):
        assert CheckpointLoader.load_checkpoint('http://x/w.pth') == {}
    assert seen == ['http://x/w.pth']
