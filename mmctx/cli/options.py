"""Command line arguments that the tools share."""

from mmengine.config import DictAction


class CfgOptions(DictAction):
    """mmengine's `--cfg-options` action, which explains itself when a value is missing."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            parser.error(f'{option_string} takes KEY=VALUE, got {" ".join(values)} ({error})')
