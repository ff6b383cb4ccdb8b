"""What becomes one line and what keeps its traceback."""

import errno
from pickle import UnpicklingError

import pytest

from mmctx.compat.pickles import RefusedPickle
from mmctx.errors import Unavailable, UserError, first_few, recognise


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (
            KeyError('Resnet is not in the mmdet::model registry. Please check whether ...'),
            'Resnet is not in the mmdet::model registry',
        ),
        (
            KeyError("class `Runner`: 'X is not in the mmengine::optim wrapper registry. See'"),
            'X is not in the mmengine::optim wrapper registry',
        ),
        (
            ValueError(
                'val_dataloader, val_cfg, and val_evaluator should be either all None or not '
                'None, but got val_dataloader={}, val_cfg=None'
            ),
            'val_dataloader, val_cfg, and val_evaluator should be either all None or not None',
        ),
        (AssertionError('failed to load image: a/1.jpg'), 'failed to load image: a/1.jpg'),
        (
            ImportError('Please run "pip install future tensorboard" to install\n it'),
            'Please run "pip install future tensorboard" to install it',
        ),
        (
            ImportError('psutil is not installed, please install it by: pip install psutil'),
            'psutil is not installed, please install it by: pip install psutil',
        ),
        (
            OSError(errno.ENOSPC, 'No space left on device', 'run/1.pth'),
            'cannot use run/1.pth: No space left on device',
        ),
        (
            FileExistsError(errno.EEXIST, 'File exists', 'run'),
            'cannot use run: File exists',
        ),
    ],
)
def test_refusals_of_other_packages_become_one_line(error, line):
    assert str(recognise(error)) == line


@pytest.mark.parametrize(
    'error',
    [
        ValueError('too many values to unpack (expected 2)'),
        KeyError('registry'),
        KeyError('x'),
        TypeError("f() got an unexpected keyword argument 'x'"),
        AssertionError(),
        FileNotFoundError(errno.ENOENT, 'No such file or directory', 'x'),
        OSError(errno.ENOSPC, 'No space left on device'),
        RuntimeError('CUDA out of memory'),
    ],
)
def test_other_errors_are_faults(error):
    assert recognise(error) is None


def test_a_refusal_stays_what_it_is():
    error = UserError('n2 > n1')
    assert recognise(error) is error


def test_callers_that_expect_the_usual_type_still_get_it():
    assert issubclass(UserError, ValueError)
    for kind, usual in [(Unavailable, NotImplementedError), (RefusedPickle, UnpicklingError)]:
        with pytest.raises(usual, match='no'):
            raise kind('no')
        assert recognise(kind('no')) is not None


def test_the_message_of_a_worker_loses_its_traceback():
    message = (
        'Caught UserError in DataLoader worker process 1.\nOriginal Traceback (most recent call '
        'last):\n  File "x.py", line 1\nmmctx.errors.UserError: a.jpg is not a readable image\n'
    )
    assert str(UserError(message)) == 'a.jpg is not a readable image'


def test_long_lists_are_cut():
    assert first_few('dbca') == 'a, b, c and 1 more'
    assert first_few('ba') == 'a, b'
