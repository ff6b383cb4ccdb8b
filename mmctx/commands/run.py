"""Run a tool of mmdet, mmpretrain, mmaction2 or mmctx, with mmctx imported before it."""

import argparse
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from mmctx.errors import UserError

PACKAGES = {'mmdet': 'mmdet', 'mmpretrain': 'mmpretrain', 'mmaction2': 'mmaction', 'mmctx': 'mmctx'}


def parse_args() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='`mmctx run mmdet` lists the tools of mmdet.'
    )
    parser.add_argument(
        'tool', help='package and tool, e.g. mmdet/browse_dataset or mmpretrain/vis_cam'
    )
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help="the tool's own arguments")
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    args = parse_args()
    package, _, name = args.tool.partition('/')
    tools = tools_of(package)
    if not name:
        print('\n'.join(f'{package}/{tool}' for tool in tools))
        return
    path = tools[find_tool(package, name, tools)]
    arguments = args.arguments
    if (package, path.stem) == ('mmpretrain', 'vis_cam'):
        if find_spec('pytorch_grad_cam') is None:
            raise UserError(
                'vis_cam needs grad-cam: pip install grad-cam; `mmctx see cam` draws the like '
                'without it'
            )
        from mmctx.cli.vis_cam import prepare_vis_cam

        arguments = prepare_vis_cam(arguments)
    if (package, path.stem) == ('mmpretrain', 'vis_tsne'):
        from mmctx.cli.vis_tsne import prepare_vis_tsne

        arguments = prepare_vis_tsne(arguments)
    sys.argv = [str(path), *arguments]
    # As Python does for a script: some tools import modules beside them.
    sys.path.insert(0, str(path.parent))
    from mmctx.compat import drawing_tools
    from mmctx.compat.checkpoint import history_allowed

    drawing_tools.install()
    # Some tools, such as publish_model, load checkpoints by torch.load itself.
    with history_allowed():
        runpy.run_path(str(path), run_name='__main__')


def tools_of(package: str) -> dict[str, Path]:
    """Files of a package's Python tools, by their paths beneath `tools/` without the ending."""
    if package not in PACKAGES:
        raise UserError(f'no tools of {package!r} are known: {", ".join(PACKAGES)}')
    spec = find_spec(PACKAGES[package])
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'{package} is not installed: pip install {package}')
    inside = Path(spec.submodule_search_locations[0])
    # As installed, or beside the package in a clone.
    folders = inside / '.mim' / 'tools', inside.parent / 'tools'
    root = next((folder for folder in folders if folder.is_dir()), None)
    if root is None:
        raise UserError(f'this installation of {package} has no tools: install its wheel or clone')
    return {
        str(path.relative_to(root).with_suffix('')): path
        for path in sorted(root.rglob('*.py'))
        if path.name != '__init__.py'
    }


def find_tool(package: str, name: str, tools: dict[str, Path]) -> str:
    """Find the full name of a tool from the last parts of its path, such as `browse_dataset`.

    Of several, it is the one with the fewest folders; two with as few are refused.
    """
    name = name.removesuffix('.py')
    if name in tools:
        return name
    found = [tool for tool in tools if tool.endswith(f'/{name}')]
    if not found:
        raise UserError(f'{package} has no tool {name!r}: `mmctx run {package}` lists them')
    # The usual one lies above those of special tasks, such as tracking.
    found.sort(key=lambda tool: tool.count('/'))
    if len(found) > 1 and found[0].count('/') == found[1].count('/'):
        raise UserError(f'{package} has several tools {name!r}: {", ".join(found)}')
    return found[0]
