"""Training steps whose backbone runs as a CUDA graph."""

import logging

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmctx.errors import UserError
from mmctx.models.unwrapping import bare_model
from mmctx.registry import HOOKS

from ..graphed_forward import GraphedForward


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Replay the backbone's forward and backward pass in training from a CUDA graph.

    That pays where launching kernels takes longer than running them, which is so for Contextual
    ResNet50 on a current GPU. Images of a batch need one size: the first batch of a size runs as
    usual, at the second a graph is captured. Validation runs as usual. On a CPU the hook does
    nothing.

    Args:
        max_graphs (int): Largest number of graphs, one for each size of a batch. Each holds the
            memory of its activations. Defaults to 2.

    Raises:
        UserError: The model has no backbone, or its backbone synchronizes batch norms or recomputes
            activations (`with_cp`).
    """

    def __init__(self, max_graphs: int = 2):
        if not isinstance(max_graphs, int) or max_graphs < 1:
            raise UserError(
                f'max_graphs should be a whole number of at least 1, got {max_graphs!r}'
            )
        self.max_graphs = max_graphs
        self.graphed: GraphedForward | None = None

    def before_train(self, runner: Runner) -> None:
        """Put the graphs in place."""
        model = bare_model(runner.model)
        backbone = getattr(model, 'backbone', None)
        if not isinstance(backbone, nn.Module):
            raise UserError(f'CudaGraphHook: {type(model).__name__} has no backbone')
        parts = [*backbone.modules()]
        if any(isinstance(m, nn.SyncBatchNorm) for m in parts):
            raise UserError('CudaGraphHook does not go with SyncBatchNorm: leave one of them out')
        if any(getattr(m, 'with_cp', False) or getattr(m, 'context_cp', False) for m in parts):
            raise UserError('CudaGraphHook does not go with with_cp: leave one of them out')
        if not torch.cuda.is_available():
            print_log(
                'no GPU: training without CUDA graphs', logger='current', level=logging.WARNING
            )
            return
        self.graphed = GraphedForward(
            backbone, inference=False, max_graphs=self.max_graphs
        ).install()

    def after_train(self, runner: Runner) -> None:
        """Give the backbone its own forward pass back."""
        if self.graphed is not None:
            self.graphed.remove()
            self.graphed = None
