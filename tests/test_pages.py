"""The examples of the README and of the contributing guide are run as they stand."""

import re

import pytest
import torch

from mmctx.cli.config import load_config
from mmctx.models.layers import ContextualConv2d


def python_blocks(repo, page='README.md'):
    return re.findall(r'```python\n(.*?)```', (repo / page).read_text(), re.DOTALL)


def test_config_of_the_readme(repo, tmp_path):
    config = next(block for block in python_blocks(repo) if '_base_' in block)
    path = tmp_path / 'own.py'
    path.write_text(config)
    backbone = load_config(str(path)).model.backbone
    assert backbone.type == 'mmctx.ContextualConvNeXt'
    assert backbone.init_cfg.checkpoint.endswith('.pth')


def test_code_of_the_readme(repo, capsys):
    code = next(block for block in python_blocks(repo) if 'stage_logits' in block)
    names = {}
    exec(code, names)
    assert capsys.readouterr().out.strip().endswith('[1000, 500, 200, 50]')
    assert names['y'].shape == (2, 8, 32, 32)


def test_any_cnn_of_the_readme(repo):
    names = {}
    exec(next(block for block in python_blocks(repo) if 'contextualize' in block), names)
    assert names['scores'].shape == (2, 10)
    assert any(isinstance(m, ContextualConv2d) for m in names['network'].modules())


def test_backbone_of_the_contributing_guide_starts_as_the_vanilla_one(repo):
    from mmpretrain.models import SEResNet

    from mmctx.registry import MODELS

    code = next(block for block in python_blocks(repo, 'CONTRIBUTING.md') if 'SEResNet' in block)
    names = {}
    try:
        exec(code, names)
    finally:
        MODELS.module_dict.pop('ContextualSEResNet', None)
    narrow = dict(depth=50, stem_channels=16, base_channels=16, out_indices=(0, 1, 2, 3))
    vanilla = SEResNet(**narrow)
    model = names['ContextualSEResNet'](num_classes=20, considered=(10, 6, 3), **narrow)
    assert not model.load_state_dict(vanilla.state_dict(), strict=False).unexpected_keys
    vanilla.eval(), model.eval()
    images = torch.randn(2, 3, 64, 64)
    for got, expected in zip(model(images), vanilla(images), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md'])
def test_files_that_a_page_names_exist(page, repo):
    text = (repo / page).read_text()
    for name in set(re.findall(r'\b(?:configs|tools|tests)/[\w./]+\.(?:py|sh)\b', text)):
        # NAME stands for what the reader adds.
        assert 'NAME' in name or (repo / name).is_file(), name


def test_tables_of_the_study_are_those_of_its_results(repo):
    text = (repo / 'README.md').read_text()
    tables = sorted(repo.glob('benchmarks/study_*/table.md'))
    assert tables
    for table in tables:
        assert table.read_text().strip() in text, table
