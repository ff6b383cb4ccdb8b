"""Change a module of another package as soon as it is imported, or what it meets meanwhile."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_actions: dict[str, Callable[[ModuleType], None]] = {}
_contexts: dict[str, Callable[[], AbstractContextManager]] = {}


class WatchingFinder:
    """Meta-path finder for the modules that are to be changed; first in `sys.meta_path`."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None) -> ModuleSpec | None:
        """Find a module that has a context to be executed in, or an action to be applied to it."""
        known = fullname in _actions or fullname in _contexts
        spec = PathFinder.find_spec(fullname, path, target) if known else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with _contexts.get(fullname, nullcontext)():
                    execute(module)
                if fullname in _actions:
                    _actions[fullname](module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action` with a module after its import, or at once if it is imported already.

    Only the first action for a module is used, so it is safe to call this again.

    Args:
        name (str): The module's absolute name.
        action (Callable): Function to call with the executed module.
    """
    if name in _actions:
        return
    _actions[name] = action
    _watch()
    module = sys.modules.get(name)
    # For a module that is still being executed this would be too early.
    if module is not None and not getattr(module.__spec__, '_initializing', False):
        action(module)


def around_import(name: str, context: Callable[[], AbstractContextManager]) -> None:
    """Execute a module inside a context manager; a module that is imported already is left alone.

    Args:
        name (str): The module's absolute name.
        context (Callable): Function that returns the context manager.
    """
    _contexts[name] = context
    _watch()


def _watch() -> None:
    if WatchingFinder not in sys.meta_path:
        sys.meta_path.insert(0, WatchingFinder)
