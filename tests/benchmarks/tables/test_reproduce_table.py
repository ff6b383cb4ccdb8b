"""The paper's tables: figures, marks, accuracies from logs, launch commands, and the tool."""

import json
import os
import re
import shlex
import sys
from decimal import Decimal

import pytest

from benchmarks.tables import reproduce
from benchmarks.tables.figures import (
    Accuracy,
    Figures,
    compare,
    config_path,
    find_accuracy,
    legend,
    table_cells,
)
from benchmarks.tables.paper import TABLES, paper_table
from benchmarks.text import as_markdown, as_text
from benchmarks.throughput import measure_throughput
from benchmarks.timing import name_device, pick_device
from mmctx.apis import build_classifier
from mmctx.cli.config import load_config
from mmctx.cli.tool import run_tool as report


@pytest.fixture
def tool(repo, monkeypatch):
    """Run the tool in this process, in the repository's folder."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['reproduce_table.py', *map(str, args)])
        monkeypatch.chdir(repo)
        report(reproduce.main)

    return run


def test_tables_have_all_rows_of_the_paper():
    assert {number: len(table.rows) for number, table in TABLES.items()} == {
        1: 12, 2: 3, 3: 3, 4: 5, 5: 4, 6: 8,
    }  # fmt: skip
    for table in TABLES.values():
        keys = [row.key for row in table.rows]
        assert len(set(keys)) == len(keys)
        assert {row.vanilla for row in table.rows} - {''} <= set(keys)
        assert all(len(row.accuracy) == len(table.metrics) for row in table.rows)


@pytest.mark.parametrize(
    ('value', 'printed', 'truncated', 'cell'),
    [
        ('25.557032', '25.5M', True, '25.557M ✓'),
        ('25.557032', '25.5M', False, '25.557M (✓)'),
        ('27.999', '28.0M', True, '27.999M (✓)'),
        ('27.999', '28.0M', False, '27.999M ✓'),
        ('31.547', '32M', False, '31.55M ✓'),
        ('31.547', '32M', True, '31.55M (✓)'),
        ('27.734', '27.2M', True, '27.734M (+0.5)'),
        ('263.3', '267G', False, '263.30G (-4)'),
    ],
)
def test_marks_say_whether_the_paper_would_print_the_same(value, printed, truncated, cell):
    assert compare(Decimal(value), printed, truncated, more=2) == cell


@pytest.mark.parametrize('number', TABLES)
def test_only_figures_of_resnet50_are_truncated(number):
    rule = 'truncated' if number in (2, 4, 5, 6) else 'rounded'
    assert f'when {rule}, as the paper prints' in legend(TABLES[number])[0]


def write_log(work_dir, run, *lines):
    path = work_dir / run / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(
        ''.join(line if isinstance(line, str) else json.dumps(line) + '\n' for line in lines)
    )


def training(epoch):
    return dict(lr=0.1, data_time=0.02, loss=3.8, time=0.3, epoch=epoch, iter=50, step=50)


def validation(epoch, top1):
    metrics = {'accuracy/top1': top1, 'accuracy/top5': 94.1, 'data_time': 0.02, 'time': 0.3}
    return {**metrics, 'step': epoch}


def accuracy_cell(table, key, work_dirs):
    (row,) = [row for row in table.rows if row.key == key]
    table = table._replace(rows=(row,))
    figures = {key: Figures(1, 1, None, find_accuracy(table, row, work_dirs))}
    return table_cells(table, figures)[1]


def test_accuracy_of_the_newest_run_with_a_validation(tmp_path):
    folder = tmp_path / 'b2_weight_offset'
    table = TABLES[5]
    assert accuracy_cell(table, 'b2', tmp_path)[-1] == '–'
    write_log(folder, '20260101_000000', validation(100, 12.3))
    write_log(
        folder, '20260301_000000',
        training(99), validation(99, 78.41), training(100), validation(100, 78.29671), '{"lr": 0',
    )  # fmt: skip
    write_log(folder, '20260302_000000', training(1))
    assert accuracy_cell(table, 'b2', tmp_path)[-1] == '78.30 ✓'
    write_log(folder, '20260303_000000', validation(7, 78.3))
    assert accuracy_cell(table, 'b2', tmp_path)[-1] == '78.30 after 7 of 100 epochs'


def test_accuracy_of_a_run_of_the_same_network(tmp_path):
    write_log(tmp_path / 'ctx_resnet50_in1k', '20260101_000000', validation(100, 79.12))
    assert accuracy_cell(TABLES[4], 'a5', tmp_path)[-1] == '79.12 (-0.23)'
    assert accuracy_cell(TABLES[6], 'c3', tmp_path)[-1] == '–'


def test_accuracy_of_a_detector(tmp_path):
    folder = tmp_path / 'mask_rcnn_convnext_t_coco'
    box = {'coco/bbox_mAP': 0.462, 'coco/bbox_mAP_50': 0.681, 'coco/bbox_mAP_75': 0.508}
    mask = {'coco/segm_mAP': 0.417, 'coco/segm_mAP_50': 0.65, 'coco/segm_mAP_75': 0.448}
    write_log(folder, '20260101_000000', {**box, **mask, 'time': 0.2, 'step': 36})
    write_log(folder, '20260102_000000', {**box, 'step': 36})
    cells = accuracy_cell(TABLES[3], 'convnext_t', tmp_path)
    assert cells[-3] == '46.2 ✓ / 68.1 (+0.2) / 50.8 ✓'
    assert cells[-1] == '41.7 ✓ / 65.0 ✓ / 44.8 (-0.1)'


def test_accuracy_of_a_recognizer(tmp_path):
    line = {'acc/top1': 0.7471, 'acc/top5': 0.9126, 'acc/mean1': 0.74, 'step': 50}
    write_log(tmp_path / 'tsm_resnet50_k400', '20260101_000000', line)
    assert accuracy_cell(TABLES[2], 'resnet50', tmp_path)[-1] == '74.7 ✓ / 91.3 (-0.1)'
    write_log(tmp_path / 'tsm_resnet50_k400', '20260102_000000', {**line, 'step': 3})
    assert accuracy_cell(TABLES[2], 'resnet50', tmp_path)[-1] == '74.7/91.3 after 3 of 50 epochs'


def test_speed_of_clips():
    table = TABLES[2]
    done = Accuracy({'acc/top1': 0.7, 'acc/top5': 0.9, 'step': 50}, 50)
    speeds = zip(('resnet50', 'resnet101', 'ctx_resnet50'), (4.0, 2.0, 3.0))
    figures = {key: Figures(10**7, 10**9, speed, done) for key, speed in speeds}
    headings, *lines = table_cells(table, figures)
    assert dict(zip(headings, zip(*lines)))['clips/s'] == ('4.000', '2.000', '3.000')
    assert 'img/s' not in headings
    explained = ' '.join(legend(table, 'CPU'))
    assert 'multiply-adds of one clip of 16 frames, 224×224' in explained
    assert 'clips/s on CPU' in explained


def test_measured_clips(tool, capsys):
    """Table 2 at its full size: 16 frames of 224×224."""
    tool(2, '--no-throughput')
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split()[0]: re.split(r'  +', line.strip())[2:5] for line in lines[4:7]}
    assert cells == {
        'resnet50': ['24.33M', '65G', '65.76G ✓'],
        'resnet101': ['43.32M', '125G', '125.32G ✓'],
        'ctx_resnet50': ['27.57M', '68G', '67.06G (-1)'],
    }


def test_speed_is_relative_to_the_vanilla_row():
    table = paper_table(1, ['convnext_t', 'ctx_convnext_t', 'ctx_convnext_s'])
    speeds = dict(zip(('convnext_t', 'ctx_convnext_t', 'ctx_convnext_s'), (40.0, 30.0, 0.5)))
    done = Accuracy({'accuracy/top1': 80.0, 'step': 300}, 300)
    figures = {key: Figures(10**7, 10**9, speed, done) for key, speed in speeds.items()}
    headings, *lines = table_cells(table, figures)
    columns = dict(zip(headings, zip(*lines)))
    assert columns['relative'] == ('–', '0.750', '–')
    assert columns["paper's relative"] == ('–', '0.995', '–')
    assert columns['img/s'] == ('40.0', '30.0', '0.500')
    cells = [headings, *lines]
    assert len({len(line) for line in as_text(cells).splitlines()}) == 1
    pipes = {line.count('|') for line in as_markdown(cells).splitlines()}
    assert pipes == {len(headings) + 1}


@pytest.mark.parametrize('number', TABLES)
def test_train_prints_commands_for_the_batch_of_the_recipe(number, tool, repo, capsys):
    tool(number, '--train', '--partition', 'gpu', '--work-dirs', 'runs')
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] not in ('', '#')]
    rows = TABLES[number].rows
    assert len(lines) == 3 * len(rows)
    for row, dist, slurm, sbatch in zip(rows, lines[::3], lines[1::3], lines[2::3]):
        script, config, gpus, flag, work_dir, *options = shlex.split(dist)
        assert (flag, options[:1]) in (('--work-dir', []), ('--work-dir', ['--cfg-options']))
        env, slurm_script, partition, _, *slurm_files = shlex.split(slurm)[1:]
        assert slurm_files == [config, work_dir]
        assert (partition, work_dir) == ('gpu', f'runs/{load_name(config)}')
        for path in (script, slurm_script):
            assert os.access(repo / path, os.X_OK)
        assert (repo / config).samefile(config_path(row))

        cfg = load_config(config, dict(option.split('=') for option in options[1:]))
        each, batch = cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size
        rounds = int(cfg.optim_wrapper.get('accumulative_counts', 1))
        assert int(gpus) * each * rounds == batch
        assert int(gpus) <= 8
        assert int(re.match(r'GPUS=(\d+) ', slurm)[1]) * each == batch
        assert env == f'GPUS_PER_NODE={gpus}'
        nodes = int(re.match(r'GPUS=(\d+) ', slurm)[1]) // int(gpus)
        for argument in (f'--nodes={nodes}', f'--ntasks-per-node={gpus}', f'--gres=gpu:{gpus}'):
            assert argument in shlex.split(sbatch)
        *_, template, same_config, work_flag, same_work_dir = shlex.split(sbatch)
        assert (same_config, work_flag, same_work_dir) == (config, '--work-dir', work_dir)
        assert os.access(repo / template, os.X_OK)
        for hook in cfg.get('custom_hooks', []):
            if hook.type == 'EMAHook':
                assert int(hook.get('interval', 1)) == rounds


def test_node_hours_of_a_row_by_hand(tool, capsys):
    tool(3, '--train', '--rows', 'swin_t')
    # 267e9 multiply-adds · 2 · 3 · 117,266 images · 36 epochs / (8 · 20e12 · 3600 s) = 11.7
    assert '# about 12 hours of a node of 8 GPUs, an estimate: ' in capsys.readouterr().out


def load_name(config):
    return config.rsplit('/', 1)[-1].removesuffix('.py')


def test_throughput_of_a_tiny_model():
    arch = dict(depths=[1, 1, 1, 1], channels=[4, 8, 8, 8])
    model = build_classifier(
        dict(
            type='mmctx.ContextualConvNeXt',
            arch=arch,
            num_classes=12,
            considered=(8, 5, 3),
            embed_dims=16,
        )
    )
    assert measure_throughput(model, (64, 64), batch_size=2, seconds=0) > 0
    assert name_device(pick_device())


def test_measured_table(run_tool, tmp_path):
    """As a user runs it: the table alone on stdout, Markdown in a file, progress on stderr."""
    args = ('--rows', 'b2', 'b1', '--seconds', 0, '--batch-size', 1, '--markdown', 'table.md')
    write_log(tmp_path / 'work_dirs' / 'b2_weight_offset', '20260101_000000', validation(100, 78.3))
    result = run_tool('reproduce_table.py', 5, *args, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r'^\[2/2\] b2: \d+ s$', result.stderr, re.MULTILINE)
    title, _, headings, _, b1, b2, _, *explained = result.stdout.splitlines()
    assert title.startswith('Table 5')
    assert headings.split()[0] == 'row'
    assert re.match(r'b1 +no offset +25\.5M +25\.557M ✓ +4\.1G +4\.112G ✓ .* –$', b1)
    assert re.match(r'b2 +weight offset +27\.5M +27\.563M ✓ .* 78\.30 ✓$', b2)
    assert any('✓' in line for line in explained)
    assert any(', batch 1, float32' in line for line in explained)

    markdown = (tmp_path / 'table.md').read_text()
    lines = [line for line in markdown.splitlines() if line.startswith('|')]
    assert len(lines) == 4
    assert len({line.count('|') for line in lines}) == 1
    assert set(lines[1]) == set('| -:')
    assert set(b2.split()) <= set(lines[3].split())


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ((7,), 'there is no Table 7; choose one of 1, 2, 3, 4, 5, 6'),
        (
            (2, '--rows', 'a1'),
            'Table 2 has no row a1; its rows are resnet50, resnet101, ctx_resnet50',
        ),
        ((4, '--rows', 'a1', 'b2'), 'Table 4 has no row b2; its rows are a1, a2, a3, a4, a5'),
        ((4, '--batch-size', '0'), '--batch-size must be at least 1, not 0'),
        ((4, '--seconds', '-1'), '--seconds must not be -1.0'),
        ((4, '--markdown', '/no/such/t.md'), '--markdown /no/such/t.md: its folder does not exist'),
    ],
)
def test_wrong_options_end_in_one_line(args, message, tool, capsys):
    with pytest.raises(SystemExit) as caught:
        tool(*args)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f'error: {message}\n'
