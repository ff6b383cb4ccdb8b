"""Environment variables in a config whose values have quotes or backslashes.

mmengine pastes the value of `{{$NAME:default}}` into the text of the config before it is run. A
quote in the value ends the string around it, so that the rest is run as Python code, and a
backslash changes the path.
"""

import functools
import os
import re

from mmengine.config import Config

_NAMES = re.compile(r'\{\{[\'"]?\s*\$(\w+)\s*:')
_ESCAPES = str.maketrans({'\\': r'\\', "'": r'\'', '"': r'\"', '\n': r'\n', '\r': r'\r'})


def install():
    """Let mmengine escape such values as in a string. Idempotent."""
    original = Config._substitute_env_variables
    if original.__module__ == __name__:
        return

    # The name of the module shows whether the change is installed.
    @functools.wraps(original, assigned=('__name__', '__doc__'))
    def substitute(filename, temp_config_name):
        if not filename.endswith('.py'):
            return original(filename, temp_config_name)
        with open(filename, encoding='utf-8') as file:
            names = set(_NAMES.findall(file.read()))
        special = {
            name: os.environ[name]
            for name in names
            if set(os.environ.get(name, '')) & set('\\\'"\n\r')
        }
        try:
            for name, value in special.items():
                os.environ[name] = _pasted(value)
            found = original(filename, temp_config_name)
        finally:
            os.environ.update(special)
        return {**found, **{name: special[name] for name in special if name in found}}

    Config._substitute_env_variables = staticmethod(substitute)


def _pasted(value):
    # `re.sub` processes it as a replacement before Python reads it.
    return value.translate(_ESCAPES).replace('\\', '\\\\')
