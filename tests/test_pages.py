"""The pages for readers: their links, files, commands and examples hold."""

import ast
import json
import re
import runpy
import shlex
import sys
import textwrap
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

import pytest
import torch
from trained_networks import run_python, write_checkpoint

from mmctx.cli.config import load_config
from mmctx.models.layers import ContextualConv2d

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ('*.md', 'docs/*.md', 'benchmarks/README.md', 'benchmarks/*/README.md')
    for path in ROOT.glob(pattern)
)
# What stands in a command for what the reader has: files, names and numbers.
PLACES = {'N': '1', 'NUM_PROCS': '2', 'SRC': 'a.pth', 'DST': 'b.pth'}
# Commands that are none of ours.
FOREIGN = ('cd', 'export', 'git', 'pip', 'pre-commit', 'source')


def read(page):
    return (ROOT / page).read_text(encoding='utf-8')


def blocks(page, language):
    """Code blocks of a language, also those in lists."""
    found = re.findall(rf'^( *)```{language}\n(.*?)^\1```', read(page), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


def programs(page):
    return [code for code in blocks(page, 'python') if '_base_' not in code]


def anchors(text):
    """Anchors of the headings, as GitHub and the site make them."""
    headings = re.findall(r'^#+ (.+)$', re.sub(r'```.*?```', '', text, flags=re.DOTALL), re.M)
    return {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings}


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', read(page)):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding='utf-8')), target


@pytest.mark.parametrize('page', PAGES)
def test_files_that_a_page_names_exist(page):
    folders = 'configs|tools|tests|mmctx|benchmarks|docs'
    for name in set(re.findall(rf'(?<![\w./])(?:{folders})/[\w./-]+\.[a-z]+\b', read(page))):
        # NAME stands for what the reader adds.
        assert 'NAME' in name or name.startswith('docs/_build') or (ROOT / name).is_file(), name


def commands(page):
    """Commands of a page's shell blocks, and those within its text that name a tool."""
    found = []
    for block in blocks(page, 'bash'):
        found += block.replace('\\\n', ' ').splitlines()
    text = re.sub(r'```.*?```', '', read(page), flags=re.DOTALL)
    found += re.findall(r'`((?:python (?:tools/|-m )|mmctx |make |tools/)[^`\n]+ [^`\n]+)`', text)
    found += re.findall(r'`(make [\w-]+)`', text)
    return [part for line in found for part in line.split('&&')]


class Parsed(BaseException):
    """Ends a tool when it has understood its arguments."""


def parse(monkeypatch, run, arguments):
    """Let a tool parse its arguments, and nothing else."""
    original = ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        original(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, 'parse_args', parse_args)
    monkeypatch.setattr(sys, 'argv', arguments)
    with pytest.raises(Parsed):
        run()
    monkeypatch.undo()


def check_command(words, monkeypatch):
    """Check that the tool of a command exists and takes the arguments."""
    while words and re.match(r'\w+=', words[0]):
        words = words[1:]
    if not words or words[0] in FOREIGN:
        return
    name, *rest = words
    name = name.removeprefix('.venv/bin/')
    if name == 'mpirun':
        check_command(words[3:], monkeypatch)
    elif name == 'make':
        (target,) = rest
        assert re.search(rf'^{target}:', read('Makefile'), re.M)
    elif name == 'python' and rest[0] == '-m':
        import_module(rest[1])
    elif name == 'python' and rest[0] == '-c':
        compile(rest[1], '<command>', 'exec')
    elif name == 'python':
        tool = str(ROOT / rest[0])
        parse(monkeypatch, lambda: runpy.run_path(tool, run_name='__main__'), rest)
    elif name == 'mmctx':
        parse(monkeypatch, import_module('mmctx.__main__').main, [name, *rest])
    elif name == 'pytest':
        assert all((ROOT / word).exists() for word in rest if word.startswith('tests'))
    elif name == 'tools/dist_train.sh':
        assert (ROOT / name).is_file()
        check_command(['python', 'tools/train.py', rest[0], *rest[2:]], monkeypatch)
    else:
        tool = name if name != 'sbatch' else next(w for w in rest if w.startswith('tools/'))
        assert tool.startswith('tools/'), f'a command that this test does not know: {name}'
        assert (ROOT / tool).is_file()


@pytest.mark.parametrize('page', [page for page in PAGES if commands(page)])
def test_commands_of_a_page_are_understood(page, monkeypatch):
    for command in commands(page):
        words = [PLACES.get(word, word) for word in shlex.split(command, comments=True)]
        check_command(words, monkeypatch)


@pytest.mark.parametrize(
    ('page', 'number'),
    [
        (page, number)
        for page in PAGES
        for number, code in enumerate(c for c in blocks(page, 'python') if '_base_' in c)
    ],
)
def test_configs_of_a_page_load(page, number, tmp_path):
    code = [code for code in blocks(page, 'python') if '_base_' in code][number]
    path = tmp_path / 'configs' / 'ablations' / 'own.py'
    path.parent.mkdir(parents=True)
    # Where the contributing guide puts its config.
    (path.parent.parent / 'ctx_resnet50_in1k.py').write_text(
        "_base_ = 'mmctx::ctx_resnet50_in1k.py'\n"
    )
    path.write_text(code, encoding='utf-8')
    backbone = load_config(str(path)).model.backbone
    assert backbone.type.startswith('mmctx.Contextual')
    if 'pretrained' in code:
        assert backbone.init_cfg.checkpoint.endswith('.pth')


def test_op_and_classifier_of_the_python_page(capsys):
    names = {}
    exec(next(code for code in programs('docs/python.md') if 'stage_logits' in code), names)
    assert capsys.readouterr().out.strip().endswith('[1000, 500, 200, 50]')
    assert names['y'].shape == (2, 8, 32, 32)


@pytest.mark.parametrize('page', ['README.md', 'docs/python.md'])
def test_any_cnn_of_a_page(page):
    names = {}
    for code in programs(page):
        if 'contextualize' in code:
            exec(code, names)
    assert names['scores'].shape == (2, 10)
    contextual = [m for m in names['network'].modules() if isinstance(m, ContextualConv2d)]
    assert contextual
    if 'losses' in names:
        assert len(names['losses']) == 4
        assert names['network'].contextualizing.logit_scale.grad is not None


RUN_PAGES = """
import json, sys, traceback
pages = json.load(open('programs.json'))
for page, programs in pages.items():
    names = {'__name__': page}
    for number, code in enumerate(programs, 1):
        try:
            exec(compile(code, f'{page}, program {number}', 'exec'), names)
        except Exception:
            sys.exit(f'{page}: {traceback.format_exc()}')
print('all have run')
"""


def test_programs_of_other_pages_run(tmp_path, pictures):
    """In the folder of a clone in which the demo has run."""
    others = [p for p in PAGES if p not in ('README.md', 'docs/python.md', 'CONTRIBUTING.md')]
    found = {page: programs(page) for page in others if programs(page)}
    assert found
    classes = ('disk', 'ring', 'square', 'triangle', 'star', 'cross', 'crescent', 'heart')
    (tmp_path / 'work_dirs').mkdir()
    config = "_base_ = 'mmctx::mask_rcnn_ctx_convnext_shapes.py'"
    demo = write_checkpoint(tmp_path / 'work_dirs' / 'demo', config, classes)
    (demo / 'epoch_1.pth').rename(demo / 'epoch_3.pth')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'data' / 'shapes' / 'val').mkdir(parents=True)
    (tmp_path / 'data' / 'shapes' / 'val' / '000000.jpg').symlink_to(pictures / 'a.jpg')
    (tmp_path / 'programs.json').write_text(json.dumps(found))
    assert run_python(RUN_PAGES, cwd=tmp_path) == 'all have run'


def test_backbone_of_the_contributing_guide_starts_as_the_vanilla_one():
    from mmpretrain.models import SEResNet

    from mmctx.registry import MODELS

    code = next(code for code in programs('CONTRIBUTING.md') if 'SEResNet' in code)
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


def test_objects_of_the_map_are_in_the_files_beside_them():
    row = r'^\|[^|]+\| `(mmctx\.[\w.]+)` \| `([\w/]+\.py)` \|$'
    lines = re.findall(row, read('docs/where.md'), re.M)
    assert len(lines) > 8
    for name, file in lines:
        module = file.removesuffix('.py').replace('/', '.')
        if name == module:
            import_module(name)
            continue
        package, _, attribute = name.rpartition('.')
        found = getattr(import_module(package), attribute)
        assert found.__module__ == module, name


def messages():
    """All texts in the package's code, with a gap where a value is put in."""
    for path in sorted((ROOT / 'mmctx').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else '\0' for p in node.values]
                yield ''.join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    text = '\n'.join(messages())
    quoted = re.findall(r'^> (`+)(.+)\1$', read('docs/troubleshooting.md'), re.M)
    assert len(quoted) > 8
    of_mmengine = 'CosineAnnealingLR: ValueError: end should be larger than begin'
    for _, message in quoted:
        for piece in message.split('…'):
            assert message == of_mmengine or piece.strip(' :') in text, piece


def test_reference_can_tell_the_errors_of_a_docstring():
    # Sphinx takes each line that is not indented further for the name of another error.
    for path in sorted((ROOT / 'mmctx').rglob('*.py')):
        for section in re.findall(r'^( +)Raises:\n((?:\1 .*\n)+)', path.read_text(), re.M):
            for line in textwrap.dedent(section[1]).splitlines():
                assert re.match(r'[\w.]+: | |"""', line), f'{path}: {line}'


def test_reference_has_all_that_a_config_can_name():
    registered = r'^@[A-Z_]+\.register_module\(\)\n(?:@.*\n)*(?:class|def) (\w+)'
    reference = read('docs/api.md')
    for path in sorted((ROOT / 'mmctx').rglob('*.py')):
        for name in re.findall(registered, path.read_text(encoding='utf-8'), re.M):
            assert re.search(rf'\b{name}$', reference, re.M) or 'compat' in path.parts, name
