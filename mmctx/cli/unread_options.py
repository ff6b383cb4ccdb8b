"""`--cfg-options` that have no effect are refused: the run would differ from what was asked for."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import mmengine.registry
from mmengine.registry import Registry

from mmctx.errors import UserError, first_few, meant

# Dicts whose keys are data: names of parameters, classes or folders, keys of samples.
OF_ANY_KEYS = ('custom_keys', 'data_prefix', 'keymap', 'mapping', 'meta', 'metainfo', 'remapping')
METAINFO = {'classes', 'palette'}
SIMILAR = 0.75
FRAMEWORKS = ('mmdet', 'mmpretrain', 'mmaction')


def check_options(before: dict, merged: dict, options: dict, known: set, path: str) -> None:
    """Refuse options without effect, and name the key that has an effect.

    Args:
        before (dict): Config without the options.
        merged (dict): Config with the options.
        options (dict): Values of the options, by dotted key.
        known (set[str]): Top-level keys that a run reads.
        path (str): Path of the config file, for messages.

    Raises:
        UserError: An option has no effect.
    """
    for option in options:
        first, *rest = option.split('.')
        if first not in known:
            check_variable(before, merged, option, known, path)
            continue
        there, now = before.get(first), merged.get(first)
        for place, key in enumerate(rest, start=1):
            if not has(there, key):
                parents = option.split('.')[:place]
                check_new_key(now, key, parents, merged, path)
            there, now = inside(there, key), inside(now, key)


def has(parent, key: str) -> bool:
    if isinstance(parent, (list, tuple)):
        return key.isdigit() and int(key) < len(parent)
    return isinstance(parent, dict) and key in parent


def inside(parent, key: str):
    if not has(parent, key):
        return None
    return parent[int(key)] if isinstance(parent, (list, tuple)) else parent[key]


def check_variable(before: dict, merged: dict, option: str, known: set, path: str) -> None:
    """Refuse a top-level key that no run reads: a variable of the file or an unknown key."""
    name = option.split('.')[0]
    if read_by_own_modules(name, merged):
        return
    said = f'--cfg-options: {option} has no effect'
    if name in before:
        holders = holders_of(before, name, before[name], known)
        if holders:
            raise UserError(
                f'{said}: {name!r} is a variable of {path}, and {first_few(holders)} '
                f'{"has" if len(holders) == 1 else "have"} taken its value: set '
                f'{"that" if len(holders) == 1 else "these"}'
            )
        raise UserError(f'{said}: {name!r} is a variable of {path} that nothing reads')
    near = [key for key, _ in leaves(before, known) if key.rsplit('.', 1)[-1] == name]
    near = sorted(near, key=rank) or nearest(name, {*before, *known})
    raise UserError(f'{said}: there is no {name!r} in {path}{meant(near)}')


def rank(path: str) -> tuple:
    """Sort key: training before validation before testing, shorter keys before longer ones."""
    return path.startswith(('val_', 'test_', 'tta_')), path.count('.'), path


def holders_of(config: dict, name: str, value, known: set) -> list[str]:
    """Keys that seem to have taken the value of a variable: of its name, else of its value."""
    same = [path for path, v in leaves(config, known) if type(v) is type(value) and v == value]
    named = [path for path in same if path.rsplit('.', 1)[-1] == name]
    # Zeros and booleans occur everywhere.
    telling = not isinstance(value, bool) and value not in (None, 0, 1, '')
    return sorted(named or (same if telling else []), key=rank)


def leaves(config: dict, known: set) -> Iterator[tuple[str, object]]:
    """Dotted key and value of each setting beneath the top-level keys that a run reads."""

    def walk(value, path):
        yield path, value
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f'{path}.{key}')
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                yield from walk(item, f'{path}.{index}')

    for key in config:
        if key in known:
            yield from walk(config[key], key)


def check_new_key(parent, key: str, parents: list[str], merged: dict, path: str) -> None:
    """Refuse a key that is not in the file and that no class that receives its dict knows."""
    where = '.'.join(parents)
    said = f'--cfg-options: nothing reads {where}.{key}'
    if parents[-1] == 'metainfo' and key not in METAINFO and nearest(key, METAINFO):
        raise UserError(said + meant_by(where, nearest(key, METAINFO)))
    if not isinstance(parent, dict) or set(parents) & set(OF_ANY_KEYS) or key.startswith('_'):
        return
    if where == 'default_hooks':
        value = parent.get(key)
        if isinstance(value, dict) and 'type' not in value:
            near = difflib.get_close_matches(key, sorted(set(parent) - {key}), n=1)
            raise UserError(f'{said}: it has no type' + meant_by(where, near))
        return
    if 'type' in parent:
        arguments = arguments_of(parent['type'], merged.get('default_scope'))
        near = nearest(key, arguments)
        if key not in arguments and near:
            raise UserError(f'{said}, of {parent["type"]}' + meant_by(where, near))
    elif not is_known_word(key, merged):
        near = nearest(key, set(parent) - {key}) or nearest_word(key, merged.get('default_scope'))
        raise UserError(said + meant_by(where, near))


def meant_by(where: str, near: list[str]) -> str:
    return meant([f'{where}.{name}' for name in near])


def arguments_of(name, scope: str | None) -> set[str]:
    """Arguments of the classes with a name, and of their bases if they pass arguments on.

    Empty if none passes arguments on: such a class itself refuses what it does not know.
    """
    found: set[str] = set()
    for cls in classes_of(name, scope):
        own = inspect.signature(cls).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            return set()
        for base in getattr(cls, '__mro__', (cls,)):
            if '__init__' in vars(base):
                found |= set(inspect.signature(base.__init__).parameters)
    return found - {'self', 'args', 'kwargs'}


def classes_of(name, scope: str | None) -> list:
    """Classes and functions that are registered under a name, in any registry."""
    if not isinstance(name, str):
        return [name]
    if scope and find_spec(scope):
        import_module(f'{scope}.registry')
    found: list = []
    for registry in vars(mmengine.registry).values():
        if not isinstance(registry, Registry):
            continue
        cls = None
        # A registry may name modules that are missing from its package.
        with suppress(ImportError):
            cls = registry.children.get(scope, registry).get(name)
        if inspect.isclass(cls) and cls not in found:
            found.append(cls)
    return found


@cache
def sources(scope: str | None) -> str:
    """Source code of the packages that read a config."""
    packages = {'mmengine', 'mmcv', 'mmctx', *([scope] if scope else [])}
    specs = [find_spec(package) for package in sorted(packages)]
    folders = [Path(place) for spec in specs if spec for place in spec.submodule_search_locations]
    files = [file for folder in folders for file in folder.rglob('*.py')]
    return '\n'.join(file.read_text(encoding='utf-8') for file in files)


def own_modules(merged: dict) -> list[str]:
    """Source code of the user's modules that the config has imported."""
    imports = merged.get('custom_imports') or {}
    names = imports.get('imports') or []
    tops = {name.partition('.')[0] for name in ([names] if isinstance(names, str) else names)}
    tops -= {'mmctx', 'mmengine', 'mmcv', *FRAMEWORKS}
    files = [
        Path(getattr(module, '__file__', None) or '')
        for name, module in list(sys.modules.items())
        if name.partition('.')[0] in tops
    ]
    files = [file for file in files if file.suffix == '.py' and file.is_file()]
    return [file.read_text(encoding='utf-8', errors='replace') for file in files]


def read_by_own_modules(name: str, merged: dict) -> bool:
    """Whether a module of the user reads a key of the whole config."""
    reading = re.compile(rf'cfg(?:\.get\(\s*|\[|\.)[\'"]?{re.escape(name)}\b')
    return any(reading.search(text) for text in own_modules(merged))


def is_known_word(word: str, merged: dict) -> bool:
    texts = [sources(merged.get('default_scope')), *own_modules(merged)]
    return any(re.search(rf'\b{re.escape(word)}\b', text) for text in texts)


def nearest_word(word: str, scope: str | None) -> list[str]:
    """Word that is most similar to a given one, of the words in quotes in the packages' code."""
    words = set(re.findall(r'[\'"]([A-Za-z_]\w{2,40})[\'"]', sources(scope)))
    return nearest(word, words)


def nearest(word: str, words: set[str]) -> list[str]:
    """Word that is most similar to a given one, in a list; [] if none is similar."""
    return difflib.get_close_matches(word, sorted(words), n=1, cutoff=SIMILAR)
