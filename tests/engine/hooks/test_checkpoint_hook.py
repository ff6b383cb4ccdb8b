"""Checkpoints are there whole or not at all, and a run resumes from the latest that is whole."""

import errno
import os
import resource
import subprocess

import pytest
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from toy_run import losses

from mmctx.checkpoints.atomic_backend import AtomicBackend
from mmctx.checkpoints.latest import find_latest
from mmctx.cli.failures import LastBatch
from mmctx.cli.running import run
from mmctx.engine import CheckpointHook
from mmctx.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def keep(number):
    return {
        'default_hooks.checkpoint': dict(type='CheckpointHook', interval=1, max_keep_ckpts=number)
    }


def cut(path, share=0.6):
    os.truncate(path, int(path.stat().st_size * share))


def test_superseded_checkpoints_go_and_the_last_one_is_named(toy_runner, tmp_path):
    toy_runner(**keep(1)).train()
    folder = tmp_path / 'run'
    assert names(folder) == ['epoch_3.pth']
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'epoch_3.pth')
    assert not list(folder.glob('.*.part'))


@pytest.mark.parametrize('moment', ['write', 'replace'])
def test_a_crash_while_saving_leaves_the_previous_checkpoint(
    moment, toy_runner, tmp_path, monkeypatch
):
    """With `max_keep_ckpts=1` mmengine has removed it by then."""

    def crash(*args):
        if list((tmp_path / 'run').glob('.epoch_2.pth.*.part')):
            raise KeyboardInterrupt
        return original(*args)

    name = dict(write='fsync', replace='replace')[moment]
    original = getattr(os, name)
    monkeypatch.setattr(f'mmctx.files.os.{name}', crash)
    with pytest.raises(KeyboardInterrupt):
        toy_runner(**keep(1)).train()
    monkeypatch.undo()
    folder = tmp_path / 'run'
    assert names(folder) == ['epoch_1.pth']
    # What is left of a process that had no time to clear up.
    (folder / '.epoch_2.pth.4711.part').write_bytes(b'half')
    resumed = toy_runner(resume=True, **keep(1))
    resumed.train()
    assert resumed.iter == len(losses(resumed)) == 21
    assert names(folder) == ['epoch_3.pth']
    assert not list(folder.glob('.*.part'))


def test_a_kill_before_the_removal_is_made_up_for(toy_runner, tmp_path, monkeypatch):
    def kill(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmengine.fileio.LocalBackend.remove', kill)
    with pytest.raises(KeyboardInterrupt):
        toy_runner(**keep(1)).train()
    monkeypatch.undo()
    folder = tmp_path / 'run'
    assert names(folder) == ['epoch_1.pth', 'epoch_2.pth']
    (folder / 'epoch_0.pth').write_bytes(b'of the user')
    toy_runner(resume=True, **keep(1)).train()
    assert names(folder) == ['epoch_0.pth', 'epoch_3.pth']


@pytest.fixture
def fill_disk(tmp_path):
    """Leave little room in the folder `run`: on a small file system, or by a limit on files."""
    folder = tmp_path / 'run'
    folder.mkdir()
    options = ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(folder)]
    mounted = subprocess.run(['mount', *options], capture_output=True).returncode == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(room):
        if mounted:
            disk = os.statvfs(folder)
            free = disk.f_bavail * disk.f_frsize
            (folder / 'ballast').write_bytes(bytes(free - room))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if mounted:
        subprocess.run(['umount', '-l', str(folder)], check=True)


class FillDisk(Hook):
    def __init__(self, fill):
        self.fill = fill

    def after_train_epoch(self, runner):
        if runner.epoch == 1:
            size = os.path.getsize(f'{runner.work_dir}/epoch_1.pth')
            self.fill(size // 2)


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(fill_disk, toy_runner, tmp_path):
    folder = tmp_path / 'run'
    with pytest.raises(UserError) as error:
        run(toy_runner(hooks=[LastBatch(), FillDisk(fill_disk)], **keep(1)), 'train')
    assert error.value.__cause__.errno in (errno.ENOSPC, errno.EFBIG)
    line = str(error.value)
    assert f'cannot write {folder}/epoch_2.pth' in line
    assert f'{folder}/epoch_1.pth is whole' in line
    assert '--resume' in line
    assert names(folder) == ['epoch_1.pth']
    assert not list(folder.glob('.*.part'))
    assert find_latest(str(folder))[::2] == (f'{folder}/epoch_1.pth', [])


@pytest.fixture
def trained(toy_runner, tmp_path):
    toy_runner().train()
    return tmp_path / 'run'


def test_run_resumes_from_the_checkpoint_before_one_that_was_cut_short(trained, toy_runner):
    cut(trained / 'epoch_3.pth')
    resumed = toy_runner(resume=True)
    resumed.train()
    assert len(losses(resumed)) == 21


def test_resuming_without_a_whole_checkpoint_is_refused_and_without_any_is_a_new_run(
    trained, toy_runner, tmp_path
):
    for path in trained.glob('*.pth'):
        cut(path)
    runner = toy_runner(resume=True, hooks=[LastBatch()])
    with pytest.raises(UserError, match=r'cannot resume in .*epoch_3.pth .*remove these'):
        run(runner, 'train')
    fresh = toy_runner('fresh', resume=True)
    fresh.train()
    assert fresh.iter == 21


def test_a_checkpoint_cannot_have_a_file_elsewhere_removed(toy_runner, tmp_path):
    """The best checkpoint so far goes for a better one; its path is read from the file."""
    precious = tmp_path / 'precious'
    precious.touch()
    hook = {'default_hooks.checkpoint': dict(type='CheckpointHook', save_best='acc')}
    runner = toy_runner(custom_hooks=[], **hook)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.message_hub.update_info('best_ckpt', str(precious))
    runner.message_hub.update_info('best_score', 0.1)
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.before_train(runner)
    hook.after_val_epoch(runner, dict(acc=0.9))
    best = tmp_path / 'run' / 'best_acc_epoch_0.pth'
    assert precious.exists() and best.is_file()
    runner.train_loop._epoch = 1
    hook.after_val_epoch(runner, dict(acc=0.95))
    assert not best.exists()
    assert names(tmp_path / 'run') == ['best_acc_epoch_1.pth']


def test_removals_wait_for_what_replaces_them(tmp_path):
    backend, old = AtomicBackend(), tmp_path / 'old'
    old.touch()
    with pytest.raises(OSError, match='no room'), backend.deferred_removals():
        backend.remove(old)
        raise OSError('no room')
    assert old.exists()
    with backend.deferred_removals():
        backend.remove(old)
        assert old.exists()
    assert not old.exists()


@pytest.mark.parametrize(
    ('checkpoint', 'left'),
    [
        (dict(save_best='acc', rule='greater'), ['best_acc_epoch_0.pth', 'epoch_1.pth']),
        (
            dict(filename_tmpl='latest.pth', max_keep_ckpts=1, by_epoch=False, interval=2),
            ['latest.pth'],
        ),
    ],
)
def test_a_file_written_anew_under_its_name_is_not_removed(checkpoint, left, toy_runner, tmp_path):
    """With one name for all, what is superseded has the name of what supersedes it."""
    runner = toy_runner(**{
        'train_cfg': dict(by_epoch=False, max_iters=4, val_interval=2),
        'param_scheduler': None,
        'val_dataloader': dict(
            batch_size=4,
            dataset=dict(type='EnginePoints'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        'val_cfg': dict(),
        'val_evaluator': dict(type='EngineRisingMetric'),
        'default_hooks.checkpoint': dict(type='CheckpointHook', **checkpoint),
    })  # fmt: skip
    runner.train()
    assert names(tmp_path / 'run') == left


def test_a_hook_given_as_a_class_is_replaced_too(toy_runner):
    runner = toy_runner()
    runner.hooks.clear()
    runner.register_default_hooks(dict(checkpoint=dict(type=MMEngineCheckpointHook, interval=1)))
    assert sum(isinstance(hook, CheckpointHook) for hook in runner.hooks) == 1
