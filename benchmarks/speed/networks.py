"""Networks to benchmark: built from configs, with inputs and labels, in a mode."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor

from benchmarks.tables.paper import TABLES
from benchmarks.throughput import bare_forward
from mmctx.apis.image_network import is_detector
from mmctx.engine import GraphedForward
from mmctx.errors import UserError
from mmctx.models.layers import ContextualConv2d

SWITCHES = ('amp', 'channels-last', 'compile', 'graph')
AMP_DTYPES = {'cpu': torch.bfloat16, 'cuda': torch.float16}
BOXES = 8
# Sizes of Δw relative to the static kernel, and of Δp in pixels.
WEIGHT_OFFSET_SHARE, SAMPLING_OFFSET_SPREAD = 0.5, 1.0

Mode = tuple[str, ...]


def parse_mode(text: str) -> Mode:
    """Read `eager` (no switch), `amp`, `amp+compile` and the like.

    Raises:
        UserError: A switch is unknown.
    """
    switches = () if text == 'eager' else tuple(text.split('+'))
    if not set(switches) <= set(SWITCHES):
        raise UserError(f'--modes {text}: eager, or some of {", ".join(SWITCHES)} joined by +')
    return switches


def vanilla_config(path: str) -> str | None:
    """Find the vanilla counterpart of one of mmctx's configs, as the paper's tables pair them.

    Args:
        path (str): Path of the config beneath `configs/`.

    Returns:
        str | None: Name beneath `configs/`, without `.py`; None if the tables have no counterpart.
    """
    name = Path(path).resolve().with_suffix('').as_posix()
    for table in TABLES.values():
        rows = {row.key: row for row in table.rows}
        for row in table.rows:
            for field in ('config', 'same_as'):
                own = getattr(row, field)
                if own and row.vanilla and name.endswith(f'/{own}'):
                    vanilla = rows[row.vanilla]
                    return getattr(vanilla, field) or vanilla.config
    return None


def randomize_predictors(model: nn.Module) -> nn.Module:
    """Draw the offset predictors of a new network at random, in place, and set layer scales to 1.

    Offsets that start at zero, and a layer scale of 1e-6, would hide a wrong result.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(getattr(module, 'gamma', None), nn.Parameter):
                module.gamma.fill_(1)
            if isinstance(module, ContextualConv2d):
                for predictor, spread in (
                    (module.sampling_offset_predictor, SAMPLING_OFFSET_SPREAD),
                    (module.weight_offset_predictor, WEIGHT_OFFSET_SHARE * module.weight.std()),
                ):
                    if predictor is not None:
                        nn.init.kaiming_normal_(predictor[-1].weight)
                        predictor[-1].weight.mul_(spread)
    return model


class Network:
    """A network in a mode, on a device.

    Args:
        model (nn.Module): An mmpretrain classifier or an mmdet detector; it is copied.
        cfg (Config): Config of the network, which contains the optimizer.
        mode (Mode): Switches of the mode, out of `SWITCHES`.
        shape (tuple[int, int]): Height and width of the images, in pixels.
        device (torch.device): Device of the network.
    """

    def __init__(
        self,
        model: nn.Module,
        cfg: Config,
        mode: Mode,
        shape: tuple[int, int],
        device: torch.device,
    ):
        self.mode, self.shape, self.device, self.optim_cfg = mode, shape, device, cfg.optim_wrapper
        self.detects = is_detector(model)
        last = 'channels-last' in mode
        self.memory_format = torch.channels_last if last else torch.contiguous_format
        self.model = deepcopy(model).to(device, memory_format=self.memory_format).eval()
        if 'compile' in mode:
            # A detector's heads select boxes, so the sizes of their tensors vary.
            target = 'extract_feat' if self.detects else 'forward'
            compiled = torch.compile(getattr(self.model, target), dynamic=False)
            setattr(self.model, target, compiled)
        if 'graph' in mode:
            GraphedForward(self.model.backbone).install()

    def autocast(self) -> AbstractContextManager:
        """Context of mixed precision, if the mode has it."""
        dtype = AMP_DTYPES[self.device.type]
        return torch.autocast(self.device.type, dtype, enabled='amp' in self.mode)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute a classifier's scores, or the maps for a detector's heads, in float32."""
        images = images.to(memory_format=self.memory_format)
        with self.autocast():
            out = self.model.extract_feat(images) if self.detects else self.model(images)
        return tuple(t.float() for t in (out if isinstance(out, (tuple, list)) else (out,)))

    def inference(self, batch_size: int) -> Callable[[], None]:
        """Make a forward pass in the mode, as `bare_forward` does."""
        forward = bare_forward(self.model, self.shape, batch_size, self.device, self.memory_format)

        def run():
            with torch.inference_mode(), self.autocast():
                forward()

        return run

    def training_step(self, batch_size: int) -> tuple[Callable[[], Tensor], OptimWrapper]:
        """Make a training step: forward, the model's losses on made-up labels, backward, optimizer.

        The learning rate is 0, so that all steps are those of the network as it was drawn. At a
        recipe's first rate the drawn offsets would leave the image, or become NaN, within a few
        steps, and other pixels would be read than in a training.

        Args:
            batch_size (int): Number of images in a batch.

        Returns:
            tuple[Callable, OptimWrapper]: Step, called without arguments, which returns the loss;
            and its optimizer. The network stays in training mode.
        """
        wrapper = deepcopy(self.optim_cfg)
        scaled = 'amp' in self.mode and self.device.type == 'cuda'
        wrapper.update(type='AmpOptimWrapper' if scaled else 'OptimWrapper', accumulative_counts=1)
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        if scaled:
            wrapper.loss_scale = 'dynamic'
        wrapper = build_optim_wrapper(self.model, wrapper)
        for group in wrapper.optimizer.param_groups:
            group['lr'] = 0.0
        images, samples = (self._boxes if self.detects else self._labels)(batch_size)
        images = images.to(memory_format=self.memory_format)
        self.model.train()

        def step():
            with self.autocast():
                losses = self.model(images, samples, mode='loss')
            loss = self.model.parse_losses(losses)[0]
            wrapper.update_params(loss)
            return loss.detach()

        return step, wrapper

    def _labels(self, batch_size):
        from mmpretrain.structures import DataSample

        images = torch.rand(batch_size, 3, *self.shape, device=self.device)
        with torch.no_grad():
            (scores,) = self.features(images[:1])
        labels = torch.randint(scores.shape[1], (batch_size, 1), device=self.device)
        return images, [DataSample().set_gt_label(label) for label in labels]

    def _boxes(self, batch_size):
        from mmdet.testing import demo_mm_inputs

        data = demo_mm_inputs(
            batch_size,
            [(3, *self.shape)] * batch_size,
            num_items=[BOXES] * batch_size,
            num_classes=2,
            with_mask=self.model.roi_head.with_mask,
        )
        data = self.model.data_preprocessor(data, training=True)
        return data['inputs'], data['data_samples']
