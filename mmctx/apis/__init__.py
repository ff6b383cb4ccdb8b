"""Functions for users. Names are imported on first use, because each imports a framework."""

from importlib import import_module

_HOMES = {
    'build_classifier': 'classifier',
    'stage_logits': 'classifier',
    'Complexity': 'complexity',
    'measure_complexity': 'complexity',
    'ExportableNetwork': 'exporting',
    'export': 'exporting',
    'Predictor': 'predicting',
    'predict': 'predicting',
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
