"""Refusals: what the user can mend, said in one line."""

import errno
import re


class UserError(ValueError):
    """A mistake that the user can mend: the tools print it as one line, without a traceback.

    mmctx raises it, or a subclass of it, wherever it refuses something on purpose. Every other
    exception is a fault and keeps its traceback.

    Args:
        message (str): Mistake, and how to mend it.
        one_rank (bool): Whether only this process of a distributed run has met it, so that this
            one has to report it. Defaults to False.
    """

    def __init__(self, message: object, one_rank: bool = False):
        message = str(message)
        if message.startswith('Caught '):
            # PyTorch raises a worker's exception again, with its traceback as the message.
            message = message.rpartition(f'{type(self).__name__}: ')[2].strip()
        super().__init__(message)
        self.one_rank = one_rank


class Unavailable(UserError, NotImplementedError):
    """Something that the installed packages lack; the message says what to install."""


# What other packages say of a mistake of the user's; what matches is the line.
UPSTREAM_REFUSALS = (
    # mmengine: a `type` that nothing is registered under.
    (KeyError, re.compile(r'[\w.]+ is not in the [^.]+ registry')),
    # mmengine: a loader without the settings of its loop, or the other way round.
    (ValueError, re.compile(r'[\w, ]+ should be either all None or not None')),
    # mmcv: a file that is no image.
    (AssertionError, re.compile(r'failed to load image: .+')),
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNUSABLE_PATH = (
    *DISK_FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
)


def recognise(error: Exception) -> UserError | None:
    """Make a refusal of another package's, known by its words or its number, one of mmctx's.

    Args:
        error (Exception): Exception that was raised.

    Returns:
        UserError | None: The error itself where it is one already; None for a fault.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in UNUSABLE_PATH and error.filename:
        return UserError(f'cannot use {error.filename}: {error.strerror}', one_rank=True)
    for kind, words in UPSTREAM_REFUSALS:
        if isinstance(error, kind) and (said := words.search(str(error))):
            return UserError(said[0])
    return None


def first_few(names, shown=3):
    """The first names in sorted order, and how many more there are, for a message."""
    names = sorted(names)
    rest = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(map(str, names[:shown])) + rest
