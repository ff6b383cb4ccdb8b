"""The checkpoint to resume from is the latest one that is whole."""

import os

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmctx.checkpoints.latest import find_latest, missing_state, read_latest
from mmctx.errors import UserError


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta={}, message_hub={}, state_dict={'weight': torch.zeros(1)}), path)


@pytest.fixture
def run(tmp_path):
    """Folder of a run with the checkpoints of three epochs."""
    for epoch in (1, 2, 3):
        path = tmp_path / f'epoch_{epoch}.pth'
        hub = dict(log_scalars={'loss': HistoryBuffer([0.5] * epoch, [1] * epoch)})
        weights = {'weight': torch.full((1000,), float(epoch))}
        contents = dict(meta=dict(epoch=epoch), message_hub=hub, state_dict=weights)
        torch.save(contents, path)
        os.utime(path, (epoch, epoch))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


def test_latest_checkpoint_comes_with_its_contents(run):
    found = read_latest(str(run))
    assert found.path == str(run / 'epoch_3.pth') and found.passed_over == []
    assert found.contents['meta'] == dict(epoch=3)
    assert torch.equal(found.contents['state_dict']['weight'], torch.full((1000,), 3.0))


@pytest.mark.parametrize('share', [0, 0.3, 0.99])
def test_checkpoint_that_was_cut_short_is_passed_over(share, run):
    os.truncate(run / 'epoch_3.pth', int((run / 'epoch_3.pth').stat().st_size * share))
    found, _, passed_over = find_latest(str(run))
    assert found == str(run / 'epoch_2.pth')
    assert len(passed_over) == 1 and 'epoch_3.pth is damaged' in passed_over[0]


@pytest.mark.parametrize('named', [b'', b'\0\0\0', b'/gone/epoch_9.pth', b'\xff\xfe'])
def test_broken_name_of_the_last_checkpoint_does_no_harm(named, run):
    (run / 'last_checkpoint').write_bytes(named)
    assert find_latest(str(run)).path == str(run / 'epoch_3.pth')


def test_files_of_weights_alone_are_passed_over(run):
    os.remove(run / 'last_checkpoint')
    for name in ('published.pth', 'best_accuracy.pth'):
        torch.save(dict(state_dict={'weight': torch.zeros(2)}), run / name)
    found, _, passed_over = find_latest(str(run))
    assert found == str(run / 'epoch_3.pth')
    assert passed_over == [f'{run}/published.pth holds no training state']


def test_remote_checkpoint_is_left_to_mmengine(run):
    (run / 'last_checkpoint').write_text('s3://bucket/epoch_9.pth')
    assert read_latest(str(run)) == ('s3://bucket/epoch_9.pth', None, [])


def test_nothing_is_found_in_an_empty_folder(tmp_path):
    assert read_latest(str(tmp_path)) == (None, None, [])


def test_only_broken_checkpoints_are_refused_by_name(run):
    for path in run.glob('*.pth'):
        path.write_bytes(b'')
    with pytest.raises(UserError, match=r'cannot resume in .*epoch_3\.pth .*epoch_1\.pth .*remove'):
        read_latest(str(run))
    assert find_latest(str(run)).path is None


def test_missing_parts_of_the_training_state_are_named():
    assert missing_state(dict(meta={}, state_dict={})) == ['message_hub']
    assert missing_state(dict(meta={}, message_hub={})) == []


def test_a_copied_work_dir_resumes_from_its_own_checkpoints(tmp_path):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    for folder in (original, copy):
        save(folder / 'epoch_1.pth')
    (copy / 'last_checkpoint').write_text(str(original / 'epoch_1.pth'))
    assert find_latest(str(copy))[::2] == (str(copy / 'epoch_1.pth'), [])
    # The original goes on, and removes what the copy names.
    save(original / 'epoch_2.pth')
    (original / 'epoch_1.pth').unlink()
    assert find_latest(str(copy))[::2] == (str(copy / 'epoch_1.pth'), [])
    (copy / 'epoch_1.pth').rename(copy / 'epoch_0.pth')
    assert find_latest(str(copy))[::2] == (str(copy / 'epoch_0.pth'), [])


def test_a_damaged_checkpoint_of_a_copy_is_not_replaced_by_the_original(tmp_path):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    save(original / 'epoch_1.pth')
    copy.mkdir()
    (copy / 'epoch_1.pth').write_bytes(b'')
    (copy / 'last_checkpoint').write_text(str(original / 'epoch_1.pth'))
    path, _, passed_over = find_latest(str(copy))
    assert path is None and len(passed_over) == 2


def test_a_folder_of_the_checkpoint_hook(tmp_path):
    """mmengine's `out_dir` gets a folder of the work dir's name."""
    save(tmp_path / 'disk' / 'run' / 'epoch_2.pth')
    (tmp_path / 'run').mkdir()
    target = tmp_path / 'disk' / 'run' / 'epoch_2.pth'
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(target))
    assert find_latest(str(tmp_path / 'run'))[::2] == (str(target), [])


def test_a_copy_without_checkpoints_does_not_resume_the_original(tmp_path):
    save(tmp_path / 'original' / 'epoch_1.pth')
    (tmp_path / 'copy').mkdir()
    target = str(tmp_path / 'original' / 'epoch_1.pth')
    (tmp_path / 'copy' / 'last_checkpoint').write_text(target)
    with pytest.raises(UserError, match=r'epoch_1.pth, which last_checkpoint names, is of another'):
        read_latest(str(tmp_path / 'copy'))
