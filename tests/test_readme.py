"""The README's examples are run as they stand."""

import re

from mmctx.cli.config import load_config


def python_blocks(repo):
    return re.findall(r'```python\n(.*?)```', (repo / 'README.md').read_text(), re.DOTALL)


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


def test_files_that_the_readme_names_exist(repo):
    text = (repo / 'README.md').read_text()
    for name in set(re.findall(r'\b(?:configs|tools|tests)/[\w./]+\.(?:py|sh)\b', text)):
        assert (repo / name).is_file(), name


def test_tables_of_the_study_are_those_of_its_results(repo):
    text = (repo / 'README.md').read_text()
    tables = sorted(repo.glob('benchmarks/study_*/table.md'))
    assert tables
    for table in tables:
        assert table.read_text().strip() in text, table
