"""Files appear under their names whole or not at all."""

import errno
import os

import pytest

from mmctx.files import atomic_write, leftovers


def test_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'made' / 'a.txt'
    with atomic_write(path) as file:
        file.write(b'new')
        assert not path.exists()
    assert path.read_bytes() == b'new'
    assert os.listdir(path.parent) == ['a.txt']


@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
def test_what_was_there_stays_if_writing_stops(error, tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes(b'old')
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b'ne')
        raise error
    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['a.txt']


def test_full_disk_is_said_of_the_file_itself(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / 'a.txt'):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / 'a.txt'))


def test_errors_of_other_files_keep_their_names(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / 'a.txt'):
        raise PermissionError(errno.EACCES, 'Permission denied', 'b.txt')
    assert caught.value.filename == 'b.txt'


def test_leftovers_of_killed_processes_are_found(tmp_path):
    for name in ('a.pth', '.a.pth.12.part', '.a.txt.12.part'):
        (tmp_path / name).touch()
    assert list(leftovers(tmp_path, '*.pth')) == [tmp_path / '.a.pth.12.part']
