"""Check of the last batch of an epoch, on which some batch norms cannot train."""

import torch.nn as nn
from mmengine.runner import EpochBasedTrainLoop

from mmctx.errors import UserError
from mmctx.models.layers.vector_step import names_of_training_norms


def check_batches(loop, model: nn.Module) -> None:
    """Check that no training batch has a single sample if a layer cannot train on one.

    Args:
        loop (BaseLoop): The training loop.
        model (nn.Module): The model, without wrappers.

    Raises:
        UserError: There is such a batch, and a batch norm over vectors trains.
    """
    loader = loop.dataloader
    size = getattr(loader, 'batch_size', None) or getattr(loader.batch_sampler, 'batch_size', None)
    layer = norm_of_vectors(model)
    if layer is None or type(size) is not int:
        return
    if size == 1:
        raise UserError(
            f'train_dataloader.batch_size is 1, and batch norm ({layer}) cannot train on one '
            "image: take larger batches, or pass norm='LN' to the backbone"
        )
    drops = getattr(loader.batch_sampler, 'drop_last', False)
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    finite = isinstance(loop, EpochBasedTrainLoop) or type(sampler).__name__ == 'DefaultSampler'
    if finite and not drops and sampler is not None and len(sampler) % size == 1:
        raise UserError(
            f'the last batch of an epoch would have one image ({len(sampler)} samples in batches '
            f'of {size}), and batch norm ({layer}) cannot train on one image: leave it out by '
            '--cfg-options train_dataloader.drop_last=True, or take another batch_size'
        )


def norm_of_vectors(model: nn.Module) -> str | None:
    """Find a batch norm that trains on one vector for each image; return its name or None."""
    mode = model.training
    model.train()
    try:
        return next(names_of_training_norms(model), None)
    finally:
        model.train(mode)
