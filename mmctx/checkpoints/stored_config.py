"""The config that mmengine stores in a checkpoint, read without being executed."""

import ast
from typing import Any

from mmengine.config import Config

from mmctx.errors import UserError

# mmengine writes a config as assignments of literals and calls of these functions.
CALLS = {'dict': dict, 'tuple': tuple, 'list': list, 'set': set, 'float': float}


def stored_config(checkpoint: dict, path: object) -> Config:
    """Read the config of the run that wrote a checkpoint.

    Args:
        checkpoint (dict): Contents of the file.
        path (str | Path): The file, for messages.

    Returns:
        Config: Config of the run, merged with its `_base_` files.

    Raises:
        UserError: The checkpoint contains no config, or the config contains more than settings.
    """
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if isinstance(text, dict):
        return Config(text)
    if not isinstance(text, str):
        raise UserError(f'{path} holds no config: name the config file of its training')
    try:
        return Config(
            {
                statement.targets[0].id: evaluate(statement.value)
                for statement in ast.parse(text).body
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            }
        )
    except (SyntaxError, ValueError, TypeError) as error:
        raise UserError(
            f'the config in {path} holds more than settings ({error}), and is not run: name the '
            'config file of its training'
        ) from error


def evaluate(node: ast.expr) -> Any:
    """Evaluate a literal that may contain calls such as `dict(...)`; else raise a ValueError."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
        # `**{'a.b': 1}`, which mmengine writes for keys that are not identifiers.
        spread = {
            k: v for key in node.keywords if key.arg is None for k, v in evaluate(key.value).items()
        }
        named = {key.arg: evaluate(key.value) for key in node.keywords if key.arg is not None}
        return CALLS[node.func.id](*map(evaluate, node.args), **named, **spread)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(evaluate(element) for element in node.elts)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError(f'line {node.lineno} unpacks a dict')
        return {
            evaluate(key): evaluate(value)
            for key, value in zip(node.keys, node.values)
            if key is not None
        }
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    if isinstance(node, (ast.Call, ast.Name, ast.Attribute)):
        raise ValueError(f'line {node.lineno} has {ast.unparse(node)[:60]!r}')
    return ast.literal_eval(node)
