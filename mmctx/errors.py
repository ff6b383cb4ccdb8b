"""Errors that the user can correct, each reported in one line."""

import errno
import re


class UserError(ValueError):
    """An error that the user can correct: the tools print it as one line, without a traceback.

    mmctx raises it, or a subclass of it, wherever it refuses something on purpose. Every other
    exception is a bug and keeps its traceback.

    Args:
        message (str): What is wrong, and how to correct it.
        one_rank (bool): Whether the error occurs in this process of a distributed run only, so that
            this process has to report it. Defaults to False.
    """

    def __init__(self, message: object, one_rank: bool = False):
        message = str(message)
        if message.startswith('Caught '):
            # PyTorch raises a worker's exception again, with its traceback as the message.
            message = message.rpartition(f'{type(self).__name__}: ')[2].strip()
        super().__init__(message)
        self.one_rank = one_rank


class Unavailable(UserError, NotImplementedError):
    """A feature that the installed packages lack; the message says what to install."""


# Errors of other packages that the user can correct; the part that matches becomes the line.
UPSTREAM_REFUSALS = (
    # mmengine: a `type` that nothing is registered under.
    (KeyError, re.compile(r'[\w.]+ is not in the [^.]+ registry')),
    # mmengine: a data loader without its loop's settings, or such settings without a data loader.
    (ValueError, re.compile(r'[\w, ]+ should be either all None or not None')),
    # Any of them: an optional package, such as tensorboard, is not there.
    (ImportError, re.compile(r'.*(?:[Pp]lease (?:run|install)|is not installed)(?:.|\n)*')),
    # mmcv: a file that is not an image.
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
    """Turn an error of another package that the user can correct into a `UserError`.

    Such errors are known by their message or their `errno`.

    Args:
        error (Exception): Exception that was raised.

    Returns:
        UserError | None: A `UserError` with the same message; the error itself if it is one
        already; None for a bug.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in UNUSABLE_PATH and error.filename:
        return UserError(f'cannot use {error.filename}: {error.strerror}', one_rank=True)
    for error_type, pattern in UPSTREAM_REFUSALS:
        if isinstance(error, error_type) and (match := pattern.search(str(error))):
            return UserError(' '.join(match[0].split()))
    return None


def meant(near):
    """Ask for the first of the names that are like an unknown one, for the end of a message."""
    return f'; is {near[0]} meant?' if near else ''


def first_few(names, shown=3):
    """List the first names in sorted order, and how many more there are, for a message."""
    names = sorted(names)
    rest = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(map(str, names[:shown])) + rest
