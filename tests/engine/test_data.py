"""Samples do not depend on who reads them, and those that cannot be read are named."""

import multiprocessing
import os
import signal
from contextlib import nullcontext

import pytest
import torch
from torch.utils.data import _utils as data_utils
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from toy_run import EnginePoints

from mmctx.cli.failures import LastBatch, explain
from mmctx.cli.running import run
from mmctx.engine.data import SampleError
from mmctx.errors import UserError


def batches(runner):
    return [batch['inputs'] for batch in runner.train_dataloader]


def test_samples_do_not_depend_on_the_number_of_workers(toy_runner):
    runs = [
        batches(toy_runner(**{'train_dataloader.num_workers': workers})) for workers in (0, 1, 3)
    ]
    first = torch.cat(runs[0])
    assert sorted(first[:, 0].tolist()) == sorted([*range(26)])
    for column in first[:, 1:].T:
        assert column.unique().numel() == 26
    for other in runs[1:]:
        torch.testing.assert_close(other, runs[0], rtol=0, atol=0)


def test_a_loader_knows_the_size_of_its_batches(toy_runner):
    """Hooks of the frameworks read it, such as mmpretrain's PreciseBNHook."""
    loader = toy_runner(**{'train_dataloader.batch_size': 5}).train_dataloader
    assert loader.batch_size == len(next(iter(loader))['inputs']) == 5


def test_samples_differ_from_epoch_to_epoch_and_with_the_seed(toy_runner):
    runner = toy_runner()
    first, second = torch.cat(batches(runner)), torch.cat(batches(runner))
    other = torch.cat(batches(toy_runner(randomness=dict(seed=8))))
    for values in (second, other):
        assert not torch.isin(values[:, 1:], first[:, 1:]).any()


def test_two_processes_read_what_one_reads_with_twice_the_batch(toy_runner, monkeypatch):
    one = torch.stack(batches(toy_runner(**{'train_dataloader.dataset.length': 24})))
    halves = []
    for rank in (0, 1):
        for module in ('mmctx.engine.data', 'mmengine.dataset.sampler'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 2))
        options = {'train_dataloader.dataset.length': 24, 'train_dataloader.batch_size': 2}
        halves.append(torch.stack(batches(toy_runner(**options))))
    together = torch.stack(halves, 2).flatten(1, 2)
    assert torch.equal(together, one)


def test_accelerators_are_seeded_once_a_batch(toy_runner, monkeypatch):
    """Seeding them takes longer than reading a small image."""
    seeds, manual_seed = [], torch.manual_seed
    for rank in (0, 1):
        monkeypatch.setattr('mmctx.engine.data.get_dist_info', lambda rank=rank: (rank, 2))
        loader = toy_runner().train_dataloader
        with monkeypatch.context() as patch:
            patch.setattr(torch, 'manual_seed', lambda s: (seeds.append(s), manual_seed(s))[1])
            assert len(seeds) == rank * len(loader)
            for _ in loader:
                pass
    assert len(set(seeds)) == len(seeds) == 2 * len(loader)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_sample_that_cannot_be_read_is_named(workers, toy_runner):
    def fail():
        raise KeyError('segmentation')

    runner = toy_runner(**{'train_dataloader.num_workers': workers})
    runner.train_dataloader.dataset.on_index[13] = fail
    with pytest.raises(SampleError, match=r'sample 13 \(/data/13.jpg\) .*KeyError: .segmentation'):
        run(runner, 'train')


@pytest.mark.parametrize('workers', [0, 2])
def test_a_broken_image_stays_one_line(workers, toy_runner):
    def fail():
        raise UserError('/data/13.jpg is not a readable image')

    runner = toy_runner(**{'train_dataloader.num_workers': workers})
    runner.train_dataloader.dataset.on_index[13] = fail
    with pytest.raises(UserError) as error:
        run(runner, 'train')
    assert str(error.value) == '/data/13.jpg is not a readable image'


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('death', ['killed', 'exited'])
def test_a_worker_that_dies_is_reported_with_its_sample(death, persistent, toy_runner, monkeypatch):
    # PyTorch looks for dead workers every five seconds.
    monkeypatch.setattr(data_utils, 'MP_STATUS_CHECK_INTERVAL', 0.5)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, '__defaults__', (0.5,))

    def die():
        os.kill(os.getpid(), signal.SIGKILL) if death == 'killed' else os._exit(1)

    runner = toy_runner(
        hooks=[LastBatch()],
        **{
            'train_dataloader.num_workers': 2,
            'train_dataloader.persistent_workers': persistent,
        },
    )
    runner.train_dataloader.dataset.on_index[13] = die
    with pytest.raises(UserError) as error:
        run(runner, 'train')
    assert 'died' in str(error.value)
    assert 'while reading sample 13 (/data/13.jpg)' in str(error.value)
    assert 'num_workers' in str(error.value)


def test_a_data_set_without_paths_still_tells_the_number(toy_runner, monkeypatch):
    def fail():
        raise KeyError

    monkeypatch.delattr(EnginePoints, 'get_data_info')
    runner = toy_runner()
    runner.train_dataloader.dataset.on_index[13] = fail
    with pytest.raises(SampleError, match=r'^sample 13 cannot be read'):
        run(runner, 'train')


@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('by_epoch', [False, True])
@pytest.mark.parametrize('ending', ['', 'while reading', 'while training'])
def test_workers_end_with_the_run(ending, by_epoch, persistent, toy_runner):
    """Python would wait for them at its exit, and they outlive the signal that it sends."""

    def fail(*args, **kwargs):
        raise UserError('no more')

    before = set(multiprocessing.active_children())
    changes = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': persistent}
    if not by_epoch:
        changes['train_cfg'] = dict(by_epoch=False, max_iters=8)
    runner = toy_runner(**changes)
    if ending == 'while reading':
        runner.train_dataloader.dataset.on_index[13] = fail
    if ending == 'while training':
        runner.model.train_step = fail
    with pytest.raises(UserError) if ending else nullcontext():
        runner.train()
    assert set(multiprocessing.active_children()) <= before


def test_a_lost_connection_to_a_store_is_no_lost_process(toy_runner):
    error = SampleError('sample 5 (http://x.jpg) cannot be read: Connection reset by peer')
    assert explain(error, toy_runner()) is None
