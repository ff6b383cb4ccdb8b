"""Checks that the data, model, metrics and loaders that a config builds agree.

:func:`check_agreement` is called before training and before testing. Each module checks one matter;
none of them changes the run. Models and data sets are those inside wrappers, a split is `train`,
`val` or `test`, and a check raises a `UserError` that names both sides.
"""

from mmctx.engine.randomness import randomness_kept
from mmctx.models.unwrapping import bare_model

from .classes import check_classes
from .datasets import leaves
from .inputs import check_clips, check_sizes
from .listed import check_listed, check_listed_sizes
from .metrics import check_metrics
from .rehearsal import rehearse
from .training import check_batches, check_lengths

__all__ = ['check_agreement']


@randomness_kept()
def check_agreement(runner, mode, checked):
    """Compare the parts of a run that have been built.

    Args:
        runner (Runner): The runner, with its loops built.
        mode (str): 'train' or 'test'.
        checked (Checked): Contents of the run's files, from the preflight.

    Raises:
        UserError: Two parts disagree; the message names both sides.
    """
    model = bare_model(runner.model)
    loops = {'train': runner._train_loop, 'val': runner._val_loop} if mode == 'train' else {}
    loops = loops or {'test': runner._test_loop}
    loops = {split: loop for split, loop in loops.items() if hasattr(loop, 'dataloader')}
    data = {split: leaves(loop.dataloader.dataset) for split, loop in loops.items()}
    for split, sets in data.items():
        for dataset in sets:
            check_listed(dataset, split)
            check_listed_sizes(dataset, split)
    check_classes(model, data, checked)
    if mode == 'train':
        check_lengths(runner)
        check_batches(runner._train_loop, model)
    for split, loop in loops.items():
        check_sizes(model, loop.dataloader, split)
        check_clips(model, loop.dataloader, split)
    scored = loops.get('val' if mode == 'train' else 'test')
    if hasattr(scored, 'evaluator'):
        split = 'val' if mode == 'train' else 'test'
        check_metrics(model, scored.evaluator.metrics, data[split], split)
        rehearse(runner, scored, split)
