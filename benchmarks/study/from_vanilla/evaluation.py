"""What a trained network knows, and how much it uses its priors."""

from contextlib import ExitStack

import torch
import torch.nn as nn
from torch import Tensor

from mmctx.models.context_record import mean_shift, record_context, relative_weight_offset
from mmctx.models.eval_mode import eval_mode
from mmctx.models.layers.merging import Merging

from .controls import priors_of_another_image, tell
from .draws import normalize
from .images import Images
from .networks import forward
from .trainer import mixed_precision

BATCH = 1000


def evaluate(network: nn.Module, images: Images, control: str = '') -> dict[str, float]:
    """Figures on the validation images, in percent: the means of `answers`."""
    return in_percent(answers(network, images, control))


def in_percent(hits: dict[str, Tensor]) -> dict[str, float]:
    """Means of booleans in percent."""
    return {name: 100 * own.float().mean().item() for name, own in hits.items()}


@torch.no_grad()
def answers(network: nn.Module, images: Images, control: str = '') -> dict[str, Tensor]:
    """What a network knows of each validation image.

    Args:
        network (nn.Module): The network; its mode is put back.
        images (Images): The validation set.
        control (str): `other` for priors of another image, or ''. Defaults to ''.

    Returns:
        dict[str, Tensor]: Booleans, (N,). `top1`: whether it is right; where there are stages,
        `top1_stage1` …, and `recall_stage1` …, whether the true class is kept after a stage.
    """
    contextualizing = getattr(network.backbone, 'contextualizing', None)
    kept: list[Tensor] = []
    found: list[dict[str, Tensor]] = []
    # Images come class by class, so that the image before would be one of the same class.
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(0))
    order = order.to(images.labels.device)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(network))
        stack.enter_context(mixed_precision(images.pixels.device))
        # A search for the quickest convolutions takes longer than the few batches. Without a word
        # on `enabled`, cuDNN would be off.
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False))
        if control == 'other':
            stack.enter_context(priors_of_another_image(network))
        if contextualizing is not None:
            hook = contextualizing.register_forward_hook(
                lambda module, args, context: kept.append(context.kept)
            )
            stack.callback(hook.remove)
        for chosen in order.split(BATCH):
            target = images.labels[chosen]
            label = target.argmax(1, keepdim=True)
            tell(network, target)
            kept.clear()
            logits = forward(network, normalize(images.pixels[chosen]))
            hits = {f'top1_stage{i}': s.argmax(1) == label[:, 0] for i, s in enumerate(logits, 1)}
            hits['top1'] = hits[f'top1_stage{len(logits)}']
            for i, among in enumerate(kept, 1):
                if among is not None:
                    hits[f'recall_stage{i}'] = among.gather(1, label)[:, 0]
            found.append(hits)
    back = order.argsort()
    return {name: torch.cat([hits[name] for hits in found])[back] for name in found[0]}


@torch.no_grad()
def examine(network: nn.Module, images: Images) -> dict[str, float]:
    """How far a network's priors differ from image to image, and what its predictors do.

    Args:
        network (nn.Module): The network; its mode is put back.
        images (Images): The validation set, of which some images are enough.

    Returns:
        dict[str, float]: `prior_spread_stage2` …: standard deviation of a prior over images beside
        its size; `offset_px`: mean |Δp|; `delta_share`: |Δw| beside |w|; `top1_swapped`: top-1 in
        percent with the priors of another image. Empty for a vanilla network.
    """
    mergings = [m for m in network.modules() if isinstance(m, Merging)]
    found: dict[str, float] = {}
    priors: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda m, a, prior: priors.append(prior)) for m in mergings]
    # As many as in `evaluate`, for which kernels are compiled.
    every = -(-len(images.labels) // BATCH)
    tell(network, images.labels[::every])
    recording = record_context(network)
    with eval_mode(network), mixed_precision(images.pixels.device), recording as record:
        forward(network, normalize(images.pixels[::every]))
    for hook in hooks:
        hook.remove()
    for i, prior in enumerate(priors, 2):
        spread = prior.float().var(0).sum() / prior.float().square().sum(1).mean()
        found[f'prior_spread_stage{i}'] = float(spread.sqrt())
    ran = record.convolutions.items()
    offsets = [mean_shift(c.sampling_offset) for _, c in ran if c.sampling_offset is not None]
    deltas = [
        relative_weight_offset(c.weight_offset, network.get_submodule(name).weight)
        for name, c in ran
        if c.weight_offset is not None
    ]
    for name, values in (('offset_px', offsets), ('delta_share', deltas)):
        if values:
            found[name] = float(torch.stack(values).mean())
    if mergings:
        found['top1_swapped'] = evaluate(network, images, control='other')['top1']
    return found
