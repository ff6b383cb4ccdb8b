"""The command `mmctx`, and tools of other packages run by it."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from forked import ENVIRONMENT

import mmctx
from mmctx.apis import predict
from mmctx.cli.vis_cam import prepare_vis_cam
from mmctx.cli.vis_tsne import prepare_vis_tsne
from mmctx.commands.run import find_tool, main, tools_of
from mmctx.errors import UserError


def run_mmctx(*arguments, cwd, **env):
    """Run `python -m mmctx` in a folder."""
    return subprocess.run(
        [sys.executable, '-m', 'mmctx', *map(str, arguments)],
        cwd=cwd,
        env={**ENVIRONMENT, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(params=['loaded', pytest.param('fresh', marks=pytest.mark.slow)])
def run_either(request, run_command):
    """Do the same where the frameworks have been imported, which is quicker, or not."""
    if request.param == 'fresh':
        return run_mmctx
    return lambda *arguments, **more: run_command('-m', 'mmctx', *arguments, **more)


def test_help_and_version(tmp_path):
    for arguments in ([], ['--help']):
        printed = run_mmctx(*arguments, cwd=tmp_path).stdout
        assert all(
            f'  {name} ' in printed for name in ('train', 'test', 'predict', 'export', 'run')
        )
    assert run_mmctx('--version', cwd=tmp_path).stdout == f'mmctx {mmctx.__version__}\n'
    assert 'usage: mmctx train' in run_mmctx('train', '--help', cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['forecast'], "no command 'forecast': train, test, predict, export, see, app, run"),
        (['train', 'no_such_config.py'], 'no_such_config.py does not exist'),
        (['run', 'mmfoo/vis_cam'], "no tools of 'mmfoo' are known"),
        (['run', 'mmdet/no_such_tool'], '`mmctx run mmdet` lists them'),
    ],
)
def test_mistakes_end_in_one_line(arguments, reason, tmp_path, run_either):
    result = run_either(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ') and reason in line


@pytest.mark.parametrize('package', ['mmdet', 'mmpretrain', 'mmaction2', 'mmctx'])
def test_lists_tools(package, tmp_path):
    listed = run_mmctx('run', package, cwd=tmp_path).stdout.splitlines()
    assert f'{package}/train' in listed and len(listed) > 5


def test_finds_a_tool_by_its_last_parts():
    tools = tools_of('mmdet')
    for name in ('browse_dataset', 'analysis_tools/browse_dataset', 'browse_dataset.py'):
        assert find_tool('mmdet', name, tools) == 'analysis_tools/browse_dataset'
    with pytest.raises(UserError, match='several tools'):
        find_tool('mmdet', 'a', dict.fromkeys(['b/a', 'c/a']))


def test_tools_of_mmdet_without_compiled_mmcv(detector, tmp_path, run_either):
    shapes = dict(SHAPES_ROOT=str(detector.parent / 'shapes'))
    config = detector / 'config.py'
    browsed = run_mmctx(
        *('run', 'mmdet/browse_dataset', config, '--not-show', '--output-dir', 'browsed'),
        cwd=tmp_path, **shapes,
    )  # fmt: skip
    assert browsed.returncode == 0, browsed.stderr
    assert len(list((tmp_path / 'browsed').rglob('*.[pj][np]g'))) == 8

    tested = run_either(
        *('test', config, detector / 'epoch_1.pth', '--out', 'found.pkl'), cwd=tmp_path, **shapes
    )
    assert tested.returncode == 0, tested.stderr
    for tool, *more in (
        ('confusion_matrix', 'matrix'),
        ('analyze_results', 'results', '--topk', '2'),
    ):
        result = run_either(
            'run', f'mmdet/{tool}', config, 'found.pkl', *more, cwd=tmp_path, **shapes
        )
        assert result.returncode == 0, result.stderr
        assert list((tmp_path / more[0]).rglob('*.*g'))


def test_a_checkpoint_is_published(classifier, tmp_path, run_either):
    """It holds mmengine's log, which `torch.load` refuses by itself."""
    command = ['run', 'mmpretrain/publish_model', classifier / 'epoch_1.pth', 'out.pth']
    result = run_either(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (published,) = tmp_path.glob('out*.pth')
    assert 'optimizer' not in torch.load(published, weights_only=False)
    assert predict([], published) == []


@pytest.mark.skipif(find_spec('pytorch_grad_cam') is not None, reason='grad-cam is installed')
def test_vis_cam_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['run', 'mmpretrain/vis_cam', 'a.jpg'])
    with pytest.raises(UserError, match='pip install grad-cam'):
        main()


def test_vis_cam_draws(classifier, pictures, tmp_path, run_either):
    pytest.importorskip('pytorch_grad_cam')
    arguments = pictures / 'a.jpg', classifier / 'config.py', classifier / 'epoch_1.pth'
    drawn = run_either(
        'run', 'mmpretrain/vis_cam', *arguments, '--save-path', 'map.png', cwd=tmp_path
    )
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / 'map.png').stat().st_size > 0


def test_vis_cam_is_told_the_last_block(classifier, pictures):
    plain = [str(pictures / 'a.jpg'), *(str(classifier / n) for n in ('config.py', 'epoch_1.pth'))]
    assert prepare_vis_cam(plain) == [*plain, '--target-layers', 'backbone.layer4.1']
    chosen = [*plain, '--target-layers', 'backbone.layer4.0']
    assert prepare_vis_cam(chosen) == chosen
    assert prepare_vis_cam(['--help']) == ['--help']


def test_vis_cam_of_a_class_that_was_dropped(classifier, pictures):
    plain = [str(pictures / 'a.jpg'), *(str(classifier / n) for n in ('config.py', 'epoch_1.pth'))]
    refused = []
    for label in range(6):
        try:
            prepare_vis_cam([*plain, '--target-category', str(label)])
        except UserError as error:
            assert 'no longer considers this class' in str(error)
            refused.append(label)
    # Of six classes one is left to the last stage.
    assert len(refused) == 5
    with pytest.raises(UserError, match='there are 6 classes'):
        prepare_vis_cam([*plain, '--target-category', '6'])


def test_vis_tsne_gets_maps_of_a_classifier(classifier):
    config, maps = str(classifier / 'config.py'), 'model.backbone.out_type=featmap'
    assert prepare_vis_tsne([config, '--legend']) == [config, '--legend', '--cfg-options', maps]
    own = ['--cfg-options', 'randomness.seed=1', '--legend']
    assert prepare_vis_tsne([config, *own]) == [config, '--cfg-options', maps, *own[1:]]
    plain = [config, '--cfg-options', maps]
    assert prepare_vis_tsne(plain) == plain
    assert prepare_vis_tsne(['--help']) == ['--help']
