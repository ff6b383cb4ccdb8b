"""Settings of a config that a resumed run does not follow, because its checkpoint has others.

mmengine restores the optimizer's groups and the schedules as they were saved, over what the config
says, without a word; the length of the training is the config's.
"""

from collections.abc import Iterator

from mmengine.optim import OptimWrapperDict

from mmctx.errors import UserError

# Where a schedule stands, which a resumed one is to take over.
POSITION = ('last_step', '_global_step', '_last_value', 'base_values', 'verbose', 'need_step_args')
HOW = 'to train by the config, start a new run from its weights: --cfg-options load_from=FILE'


def check_optimizer(path: str, wrapper, saved: dict) -> None:
    """Refuse a checkpoint whose optimizer is of another kind, or of other parameters.

    Args:
        path (str): The checkpoint, for messages.
        wrapper (OptimWrapper): The optimizer of the config.
        saved (dict): Its state in the checkpoint.

    Raises:
        UserError: The state is of another optimizer.
    """
    for name, groups, old_groups in pairs_of_groups(wrapper, saved):
        optimizer = type((wrapper[name] if name else wrapper).optimizer).__name__
        # Schedules add keys, and versions of PyTorch add defaults.
        lost = options_of(groups) - options_of(old_groups) - {'initial_lr'}
        strange = options_of(old_groups) - options_of(groups)
        strange = {key for key in strange if not key.startswith('initial_')}
        if lost and strange:
            raise UserError(
                f'cannot resume from {path}: its optimizer is not {optimizer} (it has '
                f'{", ".join(sorted(strange)[:3])}, not {", ".join(sorted(lost)[:3])}); {HOW}'
            )
        sizes = [[len(group['params']) for group in found] for found in (groups, old_groups)]
        if sizes[0] != sizes[1]:
            raise UserError(
                f'cannot resume from {path}: its optimizer has {sum(sizes[1])} parameters in '
                f'{len(sizes[1])} groups, that of the config {sum(sizes[0])} in {len(sizes[0])}; '
                f'{HOW}'
            )


def options_of(groups: list) -> set:
    return set().union(*(group.keys() for group in groups))


def named_wrappers(wrapper) -> list[tuple]:
    """Optimizer wrappers with their names; a single one has the name ''."""
    return list(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else [('', wrapper)]


def pairs_of_groups(wrapper, saved: dict) -> Iterator[tuple[str, list, list]]:
    """Name of each optimizer, its groups, and those of the checkpoint."""
    for name, one in named_wrappers(wrapper):
        old = saved.get(name, {}) if name else saved
        if 'param_groups' in old:
            yield name, one.optimizer.param_groups, old['param_groups']


def other_options(wrapper, saved: dict) -> Iterator[str]:
    """What the optimizer of a config and that of a checkpoint state differently, in words."""
    differing: dict = {}
    for _, groups, old_groups in pairs_of_groups(wrapper, saved):
        for group, old in zip(groups, old_groups):
            for key in sorted(set(group) & set(old) - {'params'}):
                # A schedule has changed the rate itself by now.
                before = old.get(f'initial_{key}', old[key])
                now = group.get(f'initial_{key}', group[key])
                if not key.startswith('initial_') and is_other(before, now):
                    differing.setdefault(key, (before, now))
    for key, (before, now) in differing.items():
        yield f'{key}={before} (the config: {now})'


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_other(before, now) -> bool:
    if is_number(before) and is_number(now):
        return abs(before - now) > 1e-9 * max(abs(before), abs(now))
    plain = (bool, str, tuple, list, type(None))
    return isinstance(before, plain) and isinstance(now, plain) and _listed(before) != _listed(now)


def _listed(value):
    return list(value) if isinstance(value, (tuple, list)) else value


def other_schedules(schedules: list, saved: list) -> Iterator[str]:
    """What the schedules of a config and those of a checkpoint state differently, in words.

    Args:
        schedules (list[_ParamScheduler]): Schedules as the config has them.
        saved (list[dict]): Their states in the checkpoint.
    """
    if len(schedules) != len(saved):
        yield f'{len(saved)} schedules (the config: {len(schedules)})'
        return
    for schedule, old in zip(schedules, saved):
        now = schedule.state_dict()
        keys = [key for key in now if key in old and key not in POSITION]
        changed = [key for key in keys if is_other(old[key], now[key])]
        if set(now) != set(old):
            yield f'another schedule (the config: {type(schedule).__name__})'
        elif changed:
            key = changed[0]
            yield f'{type(schedule).__name__}.{key}={old[key]} (the config: {now[key]})'


def other_length(loop, saved: dict) -> Iterator[str]:
    """Whether the training was to be of another length, in words.

    Args:
        loop (BaseLoop): The training loop.
        saved (dict): State of mmengine's message hub in the checkpoint.
    """
    facts = saved.get('runtime_info') if isinstance(saved, dict) else None
    by_epoch = getattr(loop, '_max_epochs', 1) != 1
    key = 'max_epochs' if by_epoch else 'max_iters'
    before = facts.get(key) if isinstance(facts, dict) else None
    now = getattr(loop, key)
    if is_number(before) and before != now:
        yield f'{key}={now} of the config counts, not the {before} of the checkpoint'
