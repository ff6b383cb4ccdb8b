"""What commands of the tests import, see `forked`."""

from contextlib import suppress
from importlib import import_module

import mmctx.cli.running  # noqa: F401

for package in ('mmpretrain', 'mmdet', 'mmaction'):
    for part in ('apis', 'datasets', 'engine', 'evaluation', 'models', 'structures', 'visualization'):
        # Not all of them are installed everywhere.
        with suppress(ImportError):
            import_module(f'{package}.{part}')
