"""Work-arounds for modules that are not imported yet, and need not be."""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from types import ModuleType

_waiting: dict[str, Callable[[ModuleType], None]] = {}


class LaterFinder:
    """Meta-path finder of modules that something is to be done with; first in `sys.meta_path`."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        """Find a module that is waited for, to be looked at once it is executed.

        Args:
            fullname (str): The module's absolute name.
            path (Sequence[str], optional): The parent package's path. Defaults to None.
            target (ModuleType, optional): Module being reloaded. Defaults to None.

        Returns:
            ModuleSpec | None: None for every other module.
        """
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _waiting else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _waiting[fullname](module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(name: str, function: Callable[[ModuleType], None]) -> None:
    """Call a function with a module as soon as that has been imported, at once if it has been.

    Args:
        name (str): The module's absolute name.
        function (Callable): Function of the module.
    """
    if name in sys.modules:
        function(sys.modules[name])
        return
    _waiting[name] = function
    if LaterFinder not in sys.meta_path:
        sys.meta_path.insert(0, LaterFinder)
