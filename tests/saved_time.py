"""Work that the frameworks do for each config anew, and that no test looks at."""

import functools

import mmengine.config.config
import mmengine.config.utils


def save_time():
    """Write configs without laying out their text; look packages and their configs up once."""
    mmengine.config.config.FormatCode = unformatted
    for module, name in (
        (mmengine.config.config, 'is_installed'),
        (mmengine.config.config, 'get_installed_path'),
        (mmengine.config.utils, 'load'),
    ):
        setattr(module, name, functools.cache(getattr(module, name)))


def unformatted(text, **style):
    """In the place of yapf, which takes half a second for a detector, four times a run."""
    return text, False
