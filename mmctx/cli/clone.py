"""Tools whose code is in `benchmarks/`, which is part of the repository but not of a wheel."""

import sys
from importlib import import_module
from pathlib import Path

from mmctx.errors import UserError

from .tool import run_tool


def run_benchmark(module: str, tool: str) -> None:
    """Run the function `main` of a module of `benchmarks/` as :func:`run_tool` does.

    Outside a clone of the repository the tool ends with one line that says so, and status 2.

    Args:
        module (str): Dotted name of the module, such as `benchmarks.speed.op`.
        tool (str): `__file__` of the tool, somewhere beneath `tools/`.
    """
    root = next(p for p in Path(tool).resolve().parents if p.name == 'tools').parent

    def main():
        if not (root / 'benchmarks' / '__init__.py').is_file():
            raise UserError(
                f'{Path(tool).name} measures with the code in benchmarks/, which is not installed '
                'with mmctx: run it from a clone of the repository'
            )
        sys.path.insert(0, str(root))
        import_module(module).main()

    run_tool(main)
