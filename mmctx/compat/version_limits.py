"""mmdet, mmpretrain and mmaction2 beside an mmcv that is newer than they know.

At their import mmdet and mmaction2 assert that mmcv is older than 2.2, which was not out then. The
maintained fork `onedl-mmcv` (2.3) has all that they use of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .after_import import around_import

KNOWN, FIRST_UNKNOWN, LAST_MAJOR = '2.1.0', (2, 2), 2


def install() -> None:
    """Have these packages see an mmcv that they know while they are imported. Idempotent."""
    for package in ('mmdet', 'mmpretrain', 'mmaction'):
        around_import(package, mmcv_as_known)


@contextmanager
def mmcv_as_known() -> Iterator[None]:
    """Lower the version that mmcv states, if it is from 2.2 on and below 3."""
    try:
        mmcv: Any = import_module('mmcv')
    except ImportError:
        # The package itself says so.
        yield
        return
    stated = mmcv.__version__
    numbers = tuple(int(part) for part in stated.split('.')[:2])
    if numbers >= FIRST_UNKNOWN and numbers[0] == LAST_MAJOR:
        mmcv.__version__ = KNOWN
    try:
        yield
    finally:
        mmcv.__version__ = stated
