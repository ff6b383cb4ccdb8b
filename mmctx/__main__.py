"""The command `mmctx`, also `python -m mmctx`."""

import sys
from importlib import import_module

from mmctx import __version__
from mmctx.cli.tool import run_tool
from mmctx.commands import COMMANDS
from mmctx.errors import UserError

USAGE = '\n'.join(
    [
        'usage: mmctx COMMAND ...',
        '',
        *(f'  {name:8} {purpose}' for name, purpose in COMMANDS.items()),
        '',
        '`mmctx COMMAND --help` lists the arguments of a command, `mmctx --version` the version.',
    ]
)


def main() -> None:
    """Run the command that the first argument names, with the others."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        print(USAGE)
    elif name == '--version':
        print(f'mmctx {__version__}')
    else:
        run_tool(lambda: run_command(name, arguments))


def run_command(name: str, arguments: list[str]) -> None:
    """Run a command of mmctx.

    Args:
        name (str): Name of the command.
        arguments (list[str]): Its own arguments.

    Raises:
        UserError: There is no such command, or it refuses.
    """
    if name not in COMMANDS:
        raise UserError(f'mmctx has no command {name!r}: {", ".join(COMMANDS)}')
    # The commands parse these, as the tools do.
    sys.argv = [f'mmctx {name}', *arguments]
    import_module(f'mmctx.commands.{name}').main()


if __name__ == '__main__':
    main()
