"""Rehearsal of a validation or test with one sample, before hours of work depend on it.

It finds what a comparison of settings cannot find: predictions that a metric cannot read, clips
that do not fit the segments of a network, names of figures that no metric computes.
"""

import contextlib
import copy
import difflib
import io
import logging

import torch
from mmengine.evaluator import DumpResults
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.logging import MMLogger
from mmengine.runner import autocast
from mmengine.structures import BaseDataElement

from mmctx.cli.blame import errors_of_others_refused
from mmctx.errors import UserError, first_few, meant
from mmctx.models.eval_mode import eval_mode


def rehearse(runner, loop, split: str) -> None:
    """Predict and score one sample, and check the figures that hooks and schedules use."""
    if not len(loop.dataloader.dataset):
        raise UserError(f'the data set of {split}_dataloader has no samples')
    parts = f'{split}_dataloader, model and {split}_evaluator'
    with errors_of_others_refused(f'{parts} do not go together: with one sample'), quiet():
        figures = figures_of_one_sample(runner.model, loop)
    if figures and split == 'val':
        check_figures(runner, figures)


@contextlib.contextmanager
def quiet():
    """Context that suppresses what metrics print and log."""
    # Python's `logging.disable` does not reach mmengine's logger, which keeps what was enabled.
    logger = MMLogger.get_current_instance()
    before, level = logging.root.manager.disable, logger.level
    logging.disable(logging.ERROR)
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        logging.disable(before)


def figures_of_one_sample(model, loop) -> list[str]:
    """Names of the figures of a validation or test; [] if they cannot be known beforehand."""
    loader = loop.dataloader
    batch = loader.collate_fn([loader.dataset[0]])
    step = model.test_step if hasattr(loop, 'test_loss') else model.val_step
    with eval_mode(model), torch.no_grad(), autocast(enabled=loop.fp16):
        outputs = step(batch)
    samples = [o.to_dict() if isinstance(o, BaseDataElement) else o for o in outputs]
    # Some models return a loss at the end of their predictions.
    samples = [s for s in samples if not isinstance(s, dict) or set(s) != {'loss'}]
    figures, complete = [], True
    for metric in loop.evaluator.metrics:
        # The metric must not keep the results of a single sample.
        metric = copy.copy(metric)
        metric.results = []
        metric.process(batch, samples)
        if writes_files(metric):
            complete = False
            continue
        names = metric.compute_metrics(on_one_image(metric))
        prefix = f'{metric.prefix}/' if metric.prefix else ''
        figures += [prefix + name for name in names]
    return figures if complete else []


def writes_files(metric) -> bool:
    """Whether a metric writes files."""
    named = getattr(metric, 'outfile_prefix', None) is not None
    return isinstance(metric, DumpResults) or getattr(metric, 'format_only', False) or named


def on_one_image(metric) -> list:
    """Compute the results of a metric; COCO's needs special care.

    COCO's metric would go through all images, and give no figures if nothing is detected.
    """
    results = metric.results
    if not hasattr(metric, '_coco_api') or not results:
        return results
    from mmctx.evaluation.coco_metric import with_placeholder_detection

    metric.img_ids = [prediction['img_id'] for _, prediction in results]
    if any(len(prediction['scores']) for _, prediction in results):
        return results
    return [with_placeholder_detection(*results[0]), *results[1:]]


def check_figures(runner, figures: list[str]) -> None:
    """Check that the metrics compute the figures that hooks and schedules use."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            for name in hook.save_best or ():
                refuse_unknown(name, figures, 'save_best of the checkpoint hook')
        if isinstance(hook, EarlyStoppingHook):
            refuse_unknown(hook.monitor, figures, 'monitor of the early stopping hook')
    schedules = runner.param_schedulers
    for schedule in schedules if isinstance(schedules, (list, tuple)) else [schedules]:
        if isinstance(schedule, dict) and isinstance(schedule.get('monitor'), str):
            refuse_unknown(schedule['monitor'], [*figures, 'loss'], 'monitor of param_scheduler')


def refuse_unknown(name: str, figures: list[str], who: str) -> None:
    if name in figures or name == 'auto':
        return
    near = [repr(figure) for figure in difflib.get_close_matches(name, figures, n=1)]
    raise UserError(
        f'{who} is {name!r}, which no metric of val_evaluator computes (there are '
        f'{first_few(figures, 6)}){meant(near)}'
    )
