"""A default hook that a config sets to None is not there."""

from mmengine.hooks import IterTimerHook, LoggerHook


def test_none_stands_for_a_hook_that_is_not_wanted(toy_runner):
    # mmdet's and mmpretrain's bases add `visualization`, which mmengine itself does not know.
    runner = toy_runner(**{'default_hooks.timer': None, 'default_hooks.visualization': None})
    kinds = {type(hook) for hook in runner.hooks}
    assert LoggerHook in kinds and IterTimerHook not in kinds
