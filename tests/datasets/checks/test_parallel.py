"""A function applied to many items, some of which end the process that works on them."""

import os
import signal
import time

import pytest

from mmctx.datasets.checks.parallel import Failure, map_unordered


def work(item):
    if item == 'raise':
        raise KeyError('no such thing')
    if item == 'segfault':
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 'exit':
        os._exit(3)
    if item == 'hang':
        time.sleep(600)
    return item * 2


@pytest.mark.parametrize('workers, chunk', [(1, 1), (2, 4), (3, 100)])
def test_every_item_has_a_result_or_its_own_failure(workers, chunk):
    bad = {
        'raise': "KeyError: 'no such thing'",
        'segfault': 'the process that read it ended with SIGSEGV',
        'exit': 'the process that read it ended with status 3',
    }
    items = [*range(5), 'segfault', *range(5, 9), 'raise', 'exit', 9]
    found = list(map_unordered(work, items, workers, chunk))
    assert sorted(map(str, items)) == sorted(str(item) for item, _ in found)
    for item, result in found:
        assert result == (Failure(bad[item]) if item in bad else item * 2)


def test_an_item_that_never_ends_is_given_up():
    found = dict(map_unordered(work, [1, 'hang', 2], workers=2, chunk=3, seconds=0.5))
    assert found == {1: 2, 2: 4, 'hang': Failure('it took more than 0.5 s')}


def test_no_items_need_no_process():
    assert list(map_unordered(work, [])) == []


def test_leaving_early_ends_the_processes():
    results = map_unordered(os_pid, range(100), workers=2)
    pids = {next(results)[1] for _ in range(4)}
    results.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def os_pid(_):
    return os.getpid()
