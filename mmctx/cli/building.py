"""Parts of a run that are built before its data are read, to find bad arguments early."""

import difflib
import logging
from contextlib import contextmanager

from mmengine.logging import print_log
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS

from mmctx.engine.resumed_settings import named_wrappers
from mmctx.errors import UserError, first_few, meant
from mmctx.registry import class_of

# Placeholders for what is known only from the data: batches of an epoch, end of a schedule.
ANY_LENGTH, ANY_END = 100, 10**9
REFUSALS_OF_CONSTRUCTORS = {
    'base_wd should not be None': (
        'optim_wrapper.optimizer has no weight_decay, which the factors of decay in '
        'optim_wrapper.paramwise_cfg or of its constructor multiply: set it, to 0 for none'
    ),
    'New atomic module type': (
        "mmaction2's TSMOptimWrapperConstructor has no rules for some layers of this network: set "
        "optim_wrapper.constructor='mmctx.TSMOptimWrapperConstructor', which has the same rules "
        'for all layers'
    ),
}


def build_parts(runner, mode):
    """Build the parts that mmengine builds late: metrics, optimizer and schedules.

    Args:
        runner (Runner): The runner. It keeps metrics and optimizer; the schedules depend on the
            length of the data and are built again later.
        mode (str): 'train' or 'test'.
    """
    if mode == 'test':
        if runner._test_evaluator is not None:
            runner._test_evaluator = runner.build_evaluator(runner._test_evaluator)
        return
    if runner._val_evaluator is not None:
        runner._val_evaluator = runner.build_evaluator(runner._val_evaluator)
    if runner.optim_wrapper is None:
        return
    check_optimizer_type(runner.optim_wrapper)
    check_custom_keys(runner.optim_wrapper, runner.model)
    with refusals_of_constructors_explained():
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    try_schedules(runner)


def check_optimizer_type(config):
    """Refuse an unknown optimizer, for which mmengine only says that None is not callable."""
    optimizer = config.get('optimizer') if isinstance(config, dict) else None
    kind = optimizer.get('type') if isinstance(optimizer, dict) else None
    if kind is None or class_of(optimizer, OPTIMIZERS) is not None:
        return
    near = difflib.get_close_matches(kind, OPTIMIZERS.module_dict, n=1)
    raise UserError(f'there is no optimizer {kind} (optim_wrapper.optimizer.type){meant(near)}')


@contextmanager
def refusals_of_constructors_explained():
    """Say which setting to change where a constructor of an optimizer speaks of its own code."""
    try:
        yield
    except ValueError as error:
        for words, mend in REFUSALS_OF_CONSTRUCTORS.items():
            if words in str(error):
                raise UserError(mend) from error
        raise


def check_custom_keys(config, model):
    """Warn of parameters with settings of their own that there are not."""
    paramwise = (config.get('paramwise_cfg') if isinstance(config, dict) else None) or {}
    names = [name for name, _ in model.named_parameters()]
    unused = [key for key in paramwise.get('custom_keys') or () if not any(key in n for n in names)]
    if unused:
        print_log(
            f'no parameter has {first_few(unused)} in its name, so that these keys of '
            'optim_wrapper.paramwise_cfg.custom_keys have no effect',
            'current',
            logging.WARNING,
        )


def try_schedules(runner):
    """Build the schedules of learning rate and momentum, and leave the optimizer as it was."""
    for name, wrapper in named_wrappers(runner.optim_wrapper):
        groups = wrapper.param_groups
        before = [dict(group) for group in groups]
        try:
            for config in schedules_of(runner.param_schedulers, name):
                if isinstance(config, dict):
                    PARAM_SCHEDULERS.build(
                        {'end': ANY_END, **config},
                        default_args=dict(optimizer=wrapper, epoch_length=ANY_LENGTH),
                    )
        finally:
            for group, old in zip(groups, before):
                group.clear()
                group.update(old)


def schedules_of(schedules, optimizer):
    """Configs of the schedules of an optimizer, which has a name if there are several."""
    if isinstance(schedules, dict) and 'type' not in schedules:
        if optimizer not in schedules:
            raise UserError(f'param_scheduler has no schedule for the optimizer {optimizer!r}')
        schedules = schedules[optimizer]
    if schedules is None:
        return []
    return schedules if isinstance(schedules, (list, tuple)) else [schedules]
