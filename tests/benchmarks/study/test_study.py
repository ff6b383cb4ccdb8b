"""The study's plan, records, tables and curves, made of records that are written here."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from statistics import stdev

import pytest
from mmengine.config import Config
from PIL import Image

from benchmarks.study.curves import draw_curves
from benchmarks.study.jobs import locked, make_jobs, makefile
from benchmarks.study.plan import PARTS, SIZES, config_file, plan_runs, planned_run
from benchmarks.study.progress import last_validation
from benchmarks.study.records import (
    fingerprint,
    last_step,
    load_records,
    make_record,
    save_record,
)
from benchmarks.study.report import differences, part_cells, part_report, spread
from benchmarks.study.results import describe_recipe, jobs_by_row, write_results
from benchmarks.study.session import Study
from benchmarks.study.speed import load_times, save_times
from mmctx.cli.running import build_model
from mmctx.errors import UserError

ROWS = PARTS['classification'].rows


def record(row, seed, top1, recall=None, part='classification', **changes):
    metrics = {'accuracy/top1': top1, 'accuracy/top5': 2 * top1}
    if recall is not None:
        metrics.update({f'recall@{kept}_stage{i}': recall - 10 * i for i, kept in enumerate('953')})
        metrics.update({f'stages/top1_stage{i}': top1 - 4 + i for i in range(1, 5)})
    return dict(
        part=part, row=row, seed=seed, fingerprint='f', metrics=metrics,
        validations=[{**metrics, 'accuracy/top1': top1 / 2, 'step': 5}, {**metrics, 'step': 10}],
        losses=[[5, 3.0], [10, 2.0]], images=[12_000, 2_500], params=1_500_000, flops=20_000_000,
        device='a device', versions=dict(mmctx='0', torch='2'), date='2026-01-01T12:00:00',
    ) | changes  # fmt: skip


def times_of_rows(**milliseconds):
    return dict(
        device='a device', versions={}, date='2026-01-02T12:00:00', batch=64,
        rows={
            row: dict(
                fingerprint=f'f-{row}', training=dict(median_s=value / 1e3),
                inference=dict(median_s=value / 4e3),
            )
            for row, value in milliseconds.items()
        },
    )  # fmt: skip


def test_plan_starts_with_the_first_seed_of_every_row():
    runs = plan_runs('cpu', list(PARTS))
    assert len(runs) == sum(row.seeds for part in PARTS.values() for row in part.rows)
    assert len({(run.part, run.name) for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    for part in PARTS.values():
        assert part.rows[0].seeds >= 3
    assert next(row for row in ROWS if row.key == 'a5').seeds >= 3
    assert [run.name for run in plan_runs('cpu', ['classification'], ['a5', 'b2'], 2)] == [
        'a5-seed0', 'b2-seed0', 'a5-seed1', 'b2-seed1',
    ]  # fmt: skip
    assert {run.row.key for run in plan_runs('cpu_long', list(PARTS))} == {
        'a1', 'a3', 'a5', 'rerank', 'a2-rerank', 'context-lr',
    }  # fmt: skip
    with pytest.raises(UserError, match='size cpu has no row b9; its rows are a1, a2'):
        plan_runs('cpu', ['classification'], ['b9'])


def config_of_run(run, changes=None):
    """The config that a run trains."""
    return make_jobs([run], changes or {}, Path('work'))[0].cfg


@pytest.mark.parametrize('size', SIZES)
def test_every_config_is_a_network_of_one_recipe(size):
    recipes, prints = set(), set()
    runs = plan_runs(size, ['classification'], seeds=1)
    for run in runs:
        cfg, key = config_of_run(run), run.row.key
        wrapper = cfg.optim_wrapper.to_dict()
        wrapper['paramwise_cfg'].pop('context_lr_mult')
        recipes.add(json.dumps([wrapper, cfg.param_scheduler, cfg.train_dataloader, cfg.train_cfg]))
        prints.add(fingerprint(cfg))
        considered = cfg.model.backbone.get('considered')
        if cfg.model.backbone.get('prior') == 'none':
            considered = None
        if size == 'cpu':
            layers = getattr(build_model(cfg).backbone, 'contextualizing', None)
            assert (layers and layers.considered) == (considered and tuple(considered))
        assert (considered is None) == (key in ('a1', 'a3', 'a4'))
        if considered:
            assert cfg.val_evaluator[1].considered == considered
            # Top-5 of fewer classes would mean something else.
            assert cfg.num_classes > considered[0] > considered[1] > considered[2] >= 5
    assert len(recipes) == 1
    assert len(prints) == len(runs)


def changes_from(base, config):
    """What a config sets other than its base, by dotted key; a removed setting is None."""

    def walk(old, new, prefix=''):
        for key in old.keys() | new.keys():
            one, other = old.get(key), new.get(key)
            if isinstance(one, dict) and isinstance(other, dict):
                yield from walk(one, other, f'{prefix}{key}.')
            elif one != other:
                yield f'{prefix}{key}', other

    return dict(walk(base.to_dict(), config.to_dict()))


@pytest.mark.parametrize('size', ['cpu_long', 'gpu'])
def test_rows_vary_the_network_alike_in_every_size(size):
    """Row by row, what is changed from a5 is what the same row changes at the size of a CPU."""
    rows = {run.row.key: run.row for run in plan_runs(size, ['classification'], seeds=1)}
    # Its classes depend on the size.
    for key in rows.keys() - {'kept-more', 'a1', 'a3', 'a4', 'a5'}:
        here, there = (
            changes_from(*(Config.fromfile(config_file(s, row)) for row in (rows['a5'], rows[key])))
            for s in (size, 'cpu')
        )
        assert here == there and here


def test_long_size_differs_from_the_short_one_in_its_schedule_alone():
    for run in plan_runs('cpu_long', ['classification'], seeds=1):
        short = run._replace(size='cpu')
        changed = changes_from(*(Config.fromfile(each.config) for each in (short, run)))
        assert changed.keys() == {
            'max_iters', 'val_interval', 'warm_up', 'param_scheduler', 'train_cfg.max_iters',
            'train_cfg.val_interval', 'default_hooks.checkpoint.interval',
        }  # fmt: skip


def test_fingerprint_is_of_the_recipe_alone(monkeypatch, tmp_path):
    run, other = plan_runs('cpu', ['classification'], ['a5'], 2)
    before = fingerprint(config_of_run(run))
    assert fingerprint(config_of_run(other, {})) != before
    assert fingerprint(config_of_run(run, {'train_cfg.max_iters': 7})) != before
    assert fingerprint(config_of_run(run, {'default_hooks.logger.interval': 7})) == before
    assert fingerprint(config_of_run(run, {'randomness.seed': 5})) == before
    for root in (str(tmp_path), 'data'):
        monkeypatch.setenv('TINY_IMAGENET_ROOT', root)
        assert fingerprint(config_of_run(run)) == before


@pytest.mark.parametrize('part', list(PARTS))
def test_fingerprint_is_not_of_the_machine(part, monkeypatch):
    run = plan_runs('cpu', [part])[0]
    prints = set()
    for has_gpu in (True, False):
        monkeypatch.setattr('torch.cuda.is_available', lambda has_gpu=has_gpu: has_gpu)
        prints.add(fingerprint(config_of_run(run)))
    monkeypatch.setenv('SHAPES_ROOT', '/elsewhere/')
    prints.add(fingerprint(config_of_run(run)))
    assert len(prints) == 1


def write_log(folder, began, *lines):
    path = folder / began / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines) + '{"lr": 0.')


def training(step, loss):
    return dict(lr=0.1, loss=loss, time=0.1 * step, iter=step, step=step)


def test_record_of_an_interrupted_run_joins_its_logs(tmp_path):
    (run,) = plan_runs('cpu', ['classification'], ['a1'], 1)
    assert last_step(config_of_run(run, {'train_cfg.max_iters': 4})) == 4
    metrics = {'accuracy/top1': 12.34567, 'time': 0.1, 'data_time': 0.1}
    write_log(
        tmp_path, '20260101_000000',
        training(1, 9.0), training(2, 8.0), {**metrics, 'step': 2}, training(3, 99.0),
    )  # fmt: skip
    assert last_validation(tmp_path, 4) is None
    write_log(
        tmp_path, '20260101_000001', training(3, 7.0), training(4, 6.0), {**metrics, 'step': 4}
    )
    assert last_validation(tmp_path, 4)['accuracy/top1'] == 12.34567
    where = dict(device='a device', versions={'torch': '2'}, date='2026-01-01')
    made = make_record(run, 'f', tmp_path, (12, 3), dict(params=1, flops=2), where)
    assert made['losses'] == [[1, 9.0], [2, 8.0], [3, 7.0], [4, 6.0]]
    assert [entry['step'] for entry in made['validations']] == [2, 4]
    assert made['fingerprint'] == 'f'
    assert made['metrics'] == {'accuracy/top1': 12.3457, 'step': 4}
    assert made['images'] == (12, 3) and made['params'] == 1 and made['versions'] == {'torch': '2'}
    assert planned_run(made, 'cpu') == run


def test_records_replace_those_of_the_same_run(tmp_path):
    out = tmp_path / 'deep' / 'out'
    assert load_records(out) == []
    other = record('a1', 0, 23.0, fingerprint='g')
    for made in (record('a1', 0, 20.0), record('a1', 1, 21.0), record('a1', 0, 22.0), other):
        save_record(out, made)
    found = {
        (r['seed'], r['fingerprint']): r['metrics']['accuracy/top1'] for r in load_records(out)
    }
    assert found == {(1, 'f'): 21.0, (0, 'f'): 22.0, (0, 'g'): 23.0}
    assert planned_run(record('z9', 0, 1.0), 'cpu') is None
    assert planned_run(record('a2', 0, 1.0), 'cpu_long') is None
    assert planned_run(record('a1', 0, 1.0, part='none'), 'cpu') is None


def test_table_compares_seed_by_seed():
    part = PARTS['classification']
    assert [part.base_of(row).key for row in part.rows[:3]] == ['a1', 'a1', 'a1']
    tops = {'a1': (20.0, 22.0, 24.0), 'a5': (21.0, 24.0)}
    records = [
        record(row, seed, top1, recall=None if row == 'a1' else 90.0)
        for row, values in tops.items()
        for seed, top1 in enumerate(values)
    ] + [record('b2', 0, 19.0, recall=90.0)]
    a5 = next(row for row in ROWS if row.key == 'a5')
    assert differences(part, records, a5, ROWS[0]) == [1.0, 2.0]
    times = times_of_rows(a1=100.0, a5=150.0, b2=140.0)
    headings, *lines = part_cells(part, records, times)
    table = {line[0]: dict(zip(headings, line)) for line in lines}
    assert list(table) == ['a1', 'a5', 'b2']
    assert table['a1']['top-1'] == '22.0 ± 2.0' and table['a1']['seeds'] == '3'
    assert table['a5']['less a1'] == f'+1.5 ± {stdev([1.0, 2.0]):.1f}'
    assert table['b2']['top-1'] == '19.0' and table['b2']['less a1'] == '-1.0'
    assert table['b2']['less the row it varies'] == 'a5: -2.0'
    assert table['a5']['less the row it varies'] == '–'
    assert table['a5']['recall after stages 1 / 2 / 3'] == '90 / 80 / 70'
    assert table['b2']['top-1 of stages 1 / 2 / 3 / 4'] == '16 / 17 / 18 / 19'
    assert table['a1']['recall after stages 1 / 2 / 3'] == table['a1']['less a1'] == '–'
    assert table['a1']['#param.'] == '1.50M' and table['a1']['FLOPs'] == '20.0M'
    assert table['a1']['training step'] == '1.00×' and table['a5']['inference'] == '1.50×'
    text = part_report('classification', records, times, 'so many images.')
    assert 'so many images. ' in text and 'a device; mmctx 0, torch 2; 2026-01-01.' in text
    assert 'takes 100 ms a training step and 25 ms a forward pass' in text
    assert {line.count('|') for line in text.splitlines() if line[:1] == '|'} == {len(headings) + 1}
    untimed = part_report('classification', records, {}, 'so many images.')
    assert 'training step' not in untimed


def test_times_are_of_todays_rows(tmp_path):
    recipes = {'a1': 'f-a1', 'a5': 'f-a5'}
    assert load_times(tmp_path, 'classification', recipes) == {}
    save_times(tmp_path, 'detection', times_of_rows(vanilla=9.0))
    save_times(tmp_path, 'classification', times_of_rows(a1=100.0, a5=150.0))
    assert load_times(tmp_path, 'classification', recipes)['batch'] == 64
    assert load_times(tmp_path, 'classification', {**recipes, 'a5': 'changed'}) == {}
    assert load_times(tmp_path, 'classification', {**recipes, 'b2': 'f-b2'}) == {}
    assert load_times(tmp_path, 'detection', {'vanilla': 'f-vanilla'})


def test_caption_is_of_the_first_row(tmp_path):
    runs = plan_runs('cpu', ['classification'], ['a1', 'a5', 'kept-more'], 2)
    jobs = make_jobs(runs[::-1], {}, tmp_path)
    kept = [(record(j.run.row.key, j.run.seed, 20.0, fingerprint=j.fingerprint), j) for j in jobs]
    rows = jobs_by_row(kept)['classification']
    assert [(key, job.run.seed) for key, job in rows.items()] == [
        ('a1', 0), ('a5', 0), ('kept-more', 0),
    ]  # fmt: skip
    text = describe_recipe([r for r, _ in kept], rows['a1'])
    assert '50 classes of 32×32 pixels, 12,000 training and 2,500 validation images' in text
    assert (
        '(2.7 passes)' in text
        and '25, 10, 5 classes, which chance recalls in 50 / 20 / 10 %.' in text
    )
    write_results(kept, tmp_path)
    assert text in (tmp_path / 'table.md').read_text() and (tmp_path / 'curves.png').is_file()


def test_a_recipe_has_folders_of_its_own(tmp_path):
    runs = plan_runs('cpu', ['classification'], ['a1'], 1)
    folders = {
        make_jobs(runs, changes, tmp_path)[0].folder for changes in ({}, {'train_cfg.max_iters': 7})
    }
    assert len(folders) == 2


@pytest.mark.parametrize('size', ['cpu', 'cpu_long'])
def test_committed_results_give_their_table(size, repo, tmp_path):
    committed = repo / 'benchmarks' / f'study_{size}'
    for name in ('runs.jsonl', 'times.json'):
        shutil.copy(committed / name, tmp_path)
    Study(size, tmp_path, tmp_path / 'work', {}, []).tabulate()
    assert (tmp_path / 'table.md').read_text() == (committed / 'table.md').read_text()


def test_make_runs_the_commands_of_every_job(tmp_path):
    work_dir = tmp_path / 'of $HOME and more'
    jobs = make_jobs(plan_runs('cpu', ['classification'], ['a1', 'a5'], 1), {}, work_dir)
    (tmp_path / 'trainings.mk').write_text(makefile(jobs, ['a=1 b=$c']))
    listed = subprocess.run(
        ['make', '--no-print-directory', '-n', '-f', tmp_path / 'trainings.mk'],
        capture_output=True,
        text=True,
        check=True,
    )
    train, show, *others = map(shlex.split, listed.stdout.splitlines())
    (run, _, _, folder), of_step = jobs[0], '500'
    assert train[3:] == [
        str(run.config), '--resume', '--work-dir', str(folder), '--cfg-options', 'a=1 b=$c',
        'randomness.seed=0', f'>>{folder / "log.txt"}', '2>&1',
    ]  # fmt: skip
    assert show[-3:] == [str(folder), 'classification', of_step]
    assert len(others) == 2


def test_two_studies_do_not_share_a_work_dir(tmp_path):
    refused = pytest.raises(UserError, match='another study is at work')
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_training_that_outlives_its_study_keeps_the_work_dir(tmp_path):
    rules = tmp_path / 'trainings.mk'
    rules.write_text('all:\n\t@echo $$$$; exec sleep 60\n')
    with locked(tmp_path) as lock:
        make = subprocess.Popen(
            ['make', '--no-print-directory', '-f', rules],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[lock],
        )
        training = int(make.stdout.readline())
    make.kill()
    make.wait()
    with pytest.raises(UserError, match='another study is at work'), locked(tmp_path):
        pass
    os.kill(training, signal.SIGKILL)
    make.stdout.read()
    with locked(tmp_path):
        pass


def test_spread_of_one_value_is_not_claimed():
    assert spread([]) == '–'
    assert spread([3.0]) == '3.0'
    assert spread([1.0, 3.0], signed=True) == '+2.0 ± 1.4'


def test_curves_are_drawn_for_one_and_for_several_seeds(tmp_path):
    records = [record(row, seed, 20.0 + seed, 90.0) for row in ('a1', 'a5') for seed in range(2)]
    draw_curves(records[:1], tmp_path / 'one.png', ('a1', 'a5'))
    draw_curves(records, tmp_path / 'two.png', ('a1', 'a5'))
    sizes = [Image.open(tmp_path / name).size for name in ('one.png', 'two.png')]
    assert all(width > 400 and height > 400 for width, height in sizes)


def test_curves_of_a_run_shorter_than_the_interval_of_its_log(tmp_path):
    draw_curves([record('a1', 0, 20.0, losses=[])], tmp_path / 'curves.png', ('a1',))
    assert (tmp_path / 'curves.png').stat().st_size > 10_000


def test_curves_without_a_validation_that_was_interrupted(tmp_path, monkeypatch):
    records = [record('a1', seed, 20.0 + seed) for seed in range(2)]
    del records[1]['validations'][0]
    lines = []
    monkeypatch.setattr(
        'matplotlib.axes.Axes.plot', lambda self, x, y, *args, **kwargs: lines.append((x, y))
    )
    monkeypatch.setattr('matplotlib.axes.Axes.legend', lambda *args, **kwargs: None)
    draw_curves(records, tmp_path / 'curves.png', ('a1',))
    assert lines == [([10], [20.5])]


@pytest.mark.parametrize('size', ['cpu', 'gpu'])
def test_detection_rows_differ_in_the_backbone_alone(size):
    vanilla, contextual = (
        Config.fromfile(config_file(size, row)).to_dict() for row in PARTS['detection'].rows
    )
    assert vanilla['model'].pop('backbone') != contextual['model'].pop('backbone')
    assert vanilla == contextual
