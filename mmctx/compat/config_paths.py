"""`_base_ = 'mmctx::...'`, which mmengine cannot resolve.

mmengine only knows a fixed table of packages, requires a slash in the config's name (mmctx's
configs are in one folder) and reads a `model-index.yml`. It also gives the base's dicts the scope
of the package, but mmctx's configs are written for the scope of the framework that they name in
`default_scope`.
"""

from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from mmctx.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_PREFIX = 'mmctx::'


class UnknownConfig(UserError, FileNotFoundError):
    """mmctx has no config of this name."""


def config_dir():
    """Directory of mmctx's configs: `mmctx/.mim/configs` as installed, `configs` in a checkout."""
    installed = _PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else _PACKAGE.parent / 'configs'


def resolve(name):
    """Get the path of one of mmctx's configs.

    Args:
        name (str): Name of the config, such as 'mmctx::_base_/runtime.py'; the prefix may be
            omitted.

    Returns:
        str: Absolute path of the file.

    Raises:
        UnknownConfig: mmctx has no such config.
    """
    name = name.removeprefix(_PREFIX)
    path = config_dir() / name
    if not path.is_file():
        raise UnknownConfig(f'mmctx has no config {name!r} in {config_dir()}')
    return str(path)


def install():
    """Let `Config.fromfile` resolve `mmctx::` bases; mmengine resolves all others."""
    if 'mmctx' in MODULE2PACKAGE:
        return
    MODULE2PACKAGE['mmctx'] = 'mmctx'
    original = Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        if cfg_path.startswith(_PREFIX):
            return resolve(cfg_path), None
        return original(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)
