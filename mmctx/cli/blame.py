"""Who is to blame for an error that is raised while a config's modules are built."""

import re
import sysconfig
from contextlib import contextmanager

from mmengine.registry import build_functions
from mmengine.runner import Runner

from mmctx.errors import UserError, recognise

UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")
# Numpy's message when mmengine stacks the samples of a data set that has none.
NO_SAMPLES = 'need at least one array to concatenate'
BUILDERS = {build_functions.build_from_cfg.__code__, Runner.build_dataloader.__code__}
INSTALLED = tuple({sysconfig.get_path(name) for name in ('purelib', 'platlib', 'stdlib')})


@contextmanager
def upstream_errors_recognised(cfg):
    """Turn the errors by which other packages refuse a config's settings into `UserError`s.

    Args:
        cfg (Config): The config that the modules are built from.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        refusal = recognise(error) or unknown_argument(error, cfg) or refusal_of_others(error)
        if refusal is None:
            raise
        raise refusal from error


def unknown_argument(error, cfg):
    """Turn the error about an argument that a module does not take into a `UserError`.

    None for any other error, and for an argument that is not in the config, which code must have
    added by mistake.
    """
    found = UNKNOWN_ARGUMENT.search(str(error)) if isinstance(error, TypeError) else None
    return UserError(error) if found and names_key(cfg.to_dict(), found[1]) else None


def names_key(config, key):
    """Whether a config, made of dicts and lists, contains a key anywhere."""
    if isinstance(config, dict):
        return key in config or any(names_key(value, key) for value in config.values())
    return isinstance(config, (list, tuple)) and any(names_key(item, key) for item in config)


def refusal_of_others(error):
    """Turn the error by which a class of another package refuses its argument into a `UserError`.

    Args:
        error (Exception): Exception raised while modules were built.

    Returns:
        UserError | None: None if code of mmctx or of the user is involved, which may be at fault.
    """
    frames = frames_of(error)
    builds = [n for n, frame in enumerate(frames) if frame.f_code in BUILDERS]
    if not builds:
        return None
    inside = frames[builds[-1] + 1 :]
    if not raised_by_others(inside):
        return None
    built = frames[builds[-1]].f_locals.get('obj_cls')
    name = f'{built.__name__}: ' if hasattr(built, '__name__') else ''
    if NO_SAMPLES in str(error):
        return UserError(
            f'{name}no sample of the data set is left; look at its ann_file, data_prefix, '
            'filter_cfg and indices'
        )
    return UserError(f'{name}{type(error).__name__}: {error}')


@contextmanager
def errors_of_others_refused(message):
    """Turn an error that only other packages are involved in into a `UserError`.

    Code of :mod:`mmctx.cli` may call them, and no other code of mmctx or the user.

    Args:
        message (str): What is not possible; the error's own words follow.
    """
    try:
        yield
    except Exception as error:
        frames = frames_of(error)
        called = [frame for frame in frames if not is_in(frame, 'mmctx.cli.')]
        refusal = recognise(error)
        if refusal is None and raised_by_others(called):
            place = frames[-1].f_globals.get('__name__', '')
            refusal = UserError(f'{message}: {place} says {type(error).__name__}: {error}')
        if refusal is None:
            raise
        raise refusal from error


def frames_of(error):
    """Frames that an exception passed through; the last one raised it."""
    frames, traceback = [], error.__traceback__
    while traceback:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return frames


def raised_by_others(frames):
    """Whether an exception that went through these frames is not of mmctx or the user.

    Functions of other packages that `compat` has mended are among these.
    """
    mended = [is_in(frame, 'mmctx.compat.') for frame in frames]
    others = [is_of_others(frame) for frame in frames]
    return all(m or o for m, o in zip(mended, others)) and not any(mended[-1:])


def is_in(frame, package):
    return frame.f_globals.get('__name__', '').startswith(package)


def is_of_others(frame):
    """Whether a frame belongs to an installed package or to Python itself, but not to mmctx."""
    module = frame.f_globals.get('__name__', '')
    own = module == 'mmctx' or module.startswith('mmctx.')
    file = frame.f_code.co_filename
    if file == '<string>':
        # Of a name that is evaluated.
        file = frame.f_globals.get('__file__') or ''
    return not own and ('site-packages' in file or file.startswith(INSTALLED))
