"""The examples of docs/see.md are run as they stand."""

import re

import torch

from mmctx.models.backbones import ContextualResNet


def test_python_of_the_page(repo):
    blocks = re.findall(r'```python\n(.*?)```', (repo / 'docs' / 'see.md').read_text(), re.DOTALL)
    code = next(block for block in blocks if 'record_context' in block)
    model = ContextualResNet(
        depth=18, stem_channels=8, base_channels=8, num_classes=12, considered=(8, 5, 3)
    )
    names = dict(model=model.eval(), images=torch.randn(2, 3, 64, 64))
    exec(code, names)
    assert names['record'].stages[1].kept.sum(1).tolist() == [8, 8]
    assert names['context'].sampling_offset.shape == (2, 18, 2, 2)


def test_hook_of_the_page(repo):
    from mmctx.registry import HOOKS

    blocks = re.findall(r'```python\n(.*?)```', (repo / 'docs' / 'see.md').read_text(), re.DOTALL)
    names = {}
    exec(next(block for block in blocks if 'custom_hooks' in block), names)
    (hook,) = names['custom_hooks']
    assert HOOKS.build(hook).interval == 50


def test_commands_of_the_page_are_understood(repo, monkeypatch):
    import shlex

    from mmctx.commands import app, see

    text = (repo / 'docs' / 'see.md').read_text().replace('\\\n', ' ')
    lines = re.findall(r'^mmctx (see|app) (.*)$', text, re.MULTILINE)
    assert {line.split()[0] for command, line in lines if command == 'see'} == set(see.FIGURES)
    for command, line in lines:
        monkeypatch.setattr('sys.argv', ['mmctx', *shlex.split(line)])
        {'see': see, 'app': app}[command].parse_args()
