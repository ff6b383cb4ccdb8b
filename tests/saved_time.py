"""Work that the frameworks do for each config anew, and that no test looks at."""

import functools

import mmengine.config.config
import mmengine.config.utils


def save_time():
    """Write configs without laying out their text; read a package's index of models once."""
    mmengine.config.config.FormatCode = unformatted
    mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)


def unformatted(text, **style):
    """In the place of yapf, which takes half a second for a detector, four times a run."""
    return text, False
