"""Tools whose code is in `benchmarks/`, which a clone of the repository has and a wheel has not."""

import sys
from importlib import import_module
from pathlib import Path

from mmctx.errors import UserError

from .tool import run_tool


def run_benchmark(module: str, tool: str) -> None:
    """Run the function `main` of a module of `benchmarks/` as :func:`run_tool` does.

    A tool that is not in a clone ends with one line that says so, and status 2.

    Args:
        module (str): Dotted name of the module, such as `benchmarks.speed.op`.
        tool (str): The tool's `__file__`, somewhere beneath `tools/`.
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
