"""Memory of a command and its children is seen, and growth told from flat memory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.memory.processes import Sample, memory_report, training_report, tree_memory, watch
from mmctx.errors import UserError

HOLD = 'import os, time; x = bytearray(os.urandom({mb} * 1000000)); {then}; time.sleep(60)'


def test_memory_of_children_counts_and_shared_pages_count_once():
    code = HOLD.format(mb=100, then='os.fork(), os.fork(); print(flush=True)')
    with subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, start_new_session=True
    ) as holder:
        for _ in range(4):
            holder.stdout.readline()
        memory, count = tree_memory(holder.pid)
        os.killpg(holder.pid, 9)
    assert count == 4
    assert 100 < memory < 180
    assert tree_memory(holder.pid) == (0, 0)


def test_a_leak_is_seen():
    code = 'import time\nx = []\nwhile True: x.append(bytearray(b"1" * 10**6)); time.sleep(0.02)'
    samples, ended = watch([sys.executable, '-c', code], 3, 0.1)
    assert ended is None
    report = memory_report(samples)
    assert report['growth_mb'] > 20
    assert report['mb_peak'] >= report['mb_at_end'] > report['mb_settled'] + 20


def test_a_command_that_ends_by_itself():
    assert watch([sys.executable, '-c', 'raise SystemExit(7)'], 60, 5)[1] == 7


def test_the_slope_is_fitted_after_the_first_quarter():
    seconds = np.arange(1, 1801)
    noise = np.random.default_rng(0).normal(0, 20, len(seconds))
    memory = np.where(seconds < 400, 2.5 * seconds, 1000 + 36 * seconds / 3600) + noise
    report = memory_report([Sample(*pair, 3) for pair in zip(seconds, memory)])
    assert report['slope_mb_per_hour'] == pytest.approx(36, abs=15)
    assert report['growth_mb'] == pytest.approx(report['slope_mb_per_hour'] * 0.375, rel=1e-3)
    assert report['mb_settled'] == pytest.approx(1003, abs=5)
    assert report['mb_at_end'] == pytest.approx(1017, abs=5)
    with pytest.raises(UserError, match='too few'):
        memory_report([Sample(i, 1.0, 1) for i in range(1, 11)])
    with pytest.raises(UserError, match='needs Linux'):
        memory_report([])


def test_speed_comes_from_the_last_log(tmp_path):
    times = [9] * 3 + [0.5] * 3 + [0.4] * 3 + [0.25] * 3
    lines = [dict(loss=1.0, time=time, step=10 * i) for i, time in enumerate(times, start=1)]
    lines.insert(5, {'coco/bbox_mAP': 0.1, 'step': 1})
    for name, log in {'20260101_000000': lines[:2], '20260102_000000': lines}.items():
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, log)))
    assert training_report(tmp_path) == {
        'iterations': 120,
        'validations': 1,
        'iterations_per_second': {'first_third': 2.0, 'last_third': 4.0},
    }
    with pytest.raises(UserError, match='0 lines of training'):
        training_report(tmp_path / 'elsewhere')
