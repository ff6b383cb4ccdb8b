"""Refusals: what the user can mend, said in one line."""


class UserError(ValueError):
    """A mistake that the user can mend: the tools print it as one line, without a traceback.

    Args:
        message (str): What is wrong and what to do about it.
        one_rank (bool): Whether only this process of a distributed run has met it, so that this
            one has to report it. Defaults to False.
    """

    def __init__(self, message, one_rank=False):
        super().__init__(message)
        self.one_rank = one_rank


def first_few(names, shown=3):
    """The first names in sorted order, and how many more there are, for a message."""
    names = sorted(names)
    rest = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(map(str, names[:shown])) + rest
