"""Make any CNN contextual: its convolutions are replaced in place, its own code runs as ever."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from mmctx import compat
from mmctx.errors import UserError, first_few
from mmctx.ops.contextualizing import ClassVectors
from mmctx.registry import MODELS

from .eval_mode import eval_mode
from .layers import ContextualConv2d, Contextualizing, contextual_like, with_zeroed_predictors
from .layers.contextual_conv import OFFSETS
from .layers.contextualizing import usually_considered
from .layers.prior import exchange_prior

Stage = tuple[nn.Module, ...]
CONTAINERS = nn.Sequential, nn.ModuleList, nn.ModuleDict
SLICE = re.compile(r'(.+)\[(\d*):(\d*)\]')


def contextualize(
    network: nn.Module,
    stages: Sequence[str],
    convolutions: str | Sequence[str] | None = None,
    every: int = 2,
    num_classes: int = 1000,
    considered: Sequence[int] | None = None,
    *,
    embed_dims: int = 256,
    selection: str = 'reduce',
    merging: dict | None = None,
    offsets: Sequence[str] = OFFSETS,
    norm: str = 'LN',
    stage_losses: bool = False,
    example: Tensor | None = None,
) -> nn.Module:
    """Replace convolutions of a network by contextual ones, and classify after its stages.

    After each stage but the last the classes are scored and the likely ones kept, and the prior
    made of them goes to the contextual convolutions of the next stage. The network keeps its own
    head, its call and the names of its parameters; until it is trained, its output stays the same.

    Args:
        network (nn.Module): The network, changed in place. It must not checkpoint gradients itself.
        stages (Sequence[str]): Paths of the modules that are its stages, in the order in which they
            run, two or more; of part of an `nn.Sequential`, such as `features[5:10]`. The first
            stage stays vanilla.
        convolutions (str | Sequence[str], optional): Last part of the paths of the convolutions to
            replace, such as `conv2`. Defaults to None, all in the stages that are dense or
            depthwise and larger than one pixel.
        every (int): Every n-th of them in a stage is replaced, beginning with the first. Defaults
            to 2.
        num_classes (int): Classes N₁ considered at first. Defaults to 1000.
        considered (Sequence[int], optional): Classes kept after each stage but the last. Defaults
            to None, the paper's proportions for four stages, its last ones for fewer.
        embed_dims (int): Width of the class embeddings. Defaults to 256.
        selection (str): `reduce` or `rerank`, see `Contextualizing`. Defaults to `reduce`.
        merging (dict, optional): How the prior is made of the kept classes, options of `Merging`.
            Defaults to None, as in the paper.
        offsets (Sequence[str]): As of `ContextualConv2d`. Defaults to both.
        norm (str): Norm in the predictors and in classifying, `LN` or `BN`. Defaults to `LN`.
        stage_losses (bool): Whether losses on the stages' logits will teach the classifying layers
            (see `collect_stage_logits`). Otherwise nothing does, and they are frozen. Defaults to
            False.
        example (Tensor, optional): Input that is run through the network once, to see how many
            channels the stages have. Defaults to None, an image of 224×224 pixels.

    Returns:
        nn.Module: The network, with `contextualizing`, a module, added to it.

    Raises:
        UserError: The network is an `nn.Sequential`, `nn.ModuleList` or `nn.ModuleDict` itself, a
            path leads nowhere, a stage has no such convolution or does not give a map
            (B, C, H, W), a convolution cannot be contextual (grouped, with padding that is not of
            zeros, or of a class of its own), or an argument is not possible.
    """
    if hasattr(network, 'contextualizing'):
        raise UserError(f'this {type(network).__name__} is contextual already')
    container = next((kind for kind in CONTAINERS if isinstance(network, kind)), None)
    if container is not None:
        raise UserError(
            f'network is an nn.{container.__name__}, of which the added layers would be members: '
            'make it an attribute of a module'
        )
    if isinstance(stages, str) or len(stages) < 2:
        raise UserError(f'stages should be paths of two modules or more, got {stages!r}')
    if not isinstance(every, int) or every < 1:
        raise UserError(f'every should be a whole number of at least 1, got {every!r}')
    found = [_find_stage(network, path) for path in stages]
    chosen = [
        _find_convolutions(network, path, stage, convolutions)[::every]
        for path, stage in zip(stages[1:], found[1:])
    ]
    channels = _channels(network, stages, found, example)
    if considered is None:
        usual = usually_considered(num_classes)
        if len(stages) - 1 > len(usual):
            raise UserError(f'state considered for {len(stages)} stages: {len(stages) - 1} numbers')
        considered = usual[len(usual) - len(stages) + 1 :]
    prior_channels = [max(convs[0][1].in_channels // 2, 1) for convs in chosen]
    cascade = StageCascade(
        channels[:-1],
        prior_channels,
        num_classes,
        considered,
        embed_dims,
        selection,
        norm=norm,
        merging=merging,
        stage_losses=stage_losses,
    )
    for length, convs in zip(prior_channels, chosen):
        for path, conv in convs:
            parent, _, name = path.rpartition('.')
            replacement = contextual_like(
                conv,
                ContextualConv2d,
                prior_channels=length,
                offsets=offsets,
                norm=norm,
                **_predictor_sizes(conv),
            )
            setattr(network.get_submodule(parent), name, replacement)
    parameter = next(network.parameters())
    network.contextualizing = cascade.to(parameter).train(network.training)
    # Found again, as a convolution may be a stage's first or last module itself.
    for index, path in enumerate(stages):
        stage = _find_stage(network, path)
        stage[0].register_forward_pre_hook(partial(cascade.enter, index))
        stage[-1].register_forward_hook(partial(cascade.leave, index))
    return network


class StageCascade(Contextualizing):
    """Contextualizing layers that follow a network's stages by hooks.

    Args:
        *args: Of `Contextualizing`.
        stage_losses (bool): Whether losses on the logits will teach the classifying layers.
        **kwargs: Of `Contextualizing`.
    """

    def __init__(self, *args, stage_losses: bool, **kwargs):
        super().__init__(*args, **kwargs)
        self.stage_losses = stage_losses
        self.run = _Run()
        if not stage_losses:
            self.classifying.requires_grad_(False)
            self.logit_scale.requires_grad_(False)

    def enter(self, index: int, module: nn.Module, args: tuple) -> None:
        """Before a stage, counted from 0: give its convolutions the prior."""
        run = self.run
        if index == 0:
            run.kept, run.classes = None, self.class_vectors()
        else:
            run.outside = exchange_prior(run.prior)

    def leave(self, index: int, module: nn.Module, args: tuple, output: Tensor) -> None:
        """After a stage, counted from 0: make the next one's prior of its map."""
        run = self.run
        if index:
            exchange_prior(run.outside)
        if index == len(self.merging):
            run.kept = run.classes = run.prior = run.outside = None
            return
        # Without a loss on the logits nothing flows back from them.
        seen = output if self.stage_losses else output.detach()
        logits, run.kept, run.prior = self(seen, index, run.kept, run.classes)
        if run.collected is not None:
            run.collected.append(logits)


class _Run(threading.local):
    """What a thread's call of a network has come to; a copied or pickled network has none."""

    kept: Tensor | None = None
    classes: ClassVectors | None = None
    prior: Tensor | None = None
    outside: Tensor | None = None
    collected: list[Tensor] | None = None

    def __reduce__(self):
        return _Run, ()


@contextmanager
def collect_stage_logits(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the stages of a network think of the images that this thread shows it.

    Args:
        network (nn.Module): Network that `contextualize` has changed.

    Yields:
        list[Tensor]: Extended, at each call inside, by the logits of each stage but the last,
        (B, N₁), −inf for classes no longer considered; `StagewiseCrossEntropy` takes them.

    Raises:
        UserError: The network has not been contextualized.
    """
    cascade = getattr(network, 'contextualizing', None)
    if not isinstance(cascade, StageCascade):
        raise UserError('collect_stage_logits takes a network that `contextualize` has changed')
    before, cascade.run.collected = cascade.run.collected, []
    try:
        yield cascade.run.collected
    finally:
        cascade.run.collected = before


@MODELS.register_module()
def Contextualized(network: dict, stages: Sequence[str], **options) -> nn.Module:
    """Build a network from its config and make it contextual, for config files.

    Args:
        network (dict): Config of the network.
        stages (Sequence[str]): Paths of its stages.
        **options: Of `contextualize`.

    Returns:
        nn.Module: The network.
    """
    compat.install_runtime()
    model: Any = contextualize(MODELS.build(network), stages, **options)
    if hasattr(model, 'init_cfg'):
        model.init_cfg = with_zeroed_predictors(model.init_cfg)
    return model


def _find_stage(network: nn.Module, path: str) -> Stage:
    """The modules of a stage, one or several that run one after the other."""
    part = SLICE.fullmatch(path)
    try:
        module = network.get_submodule(part[1] if part else path)
    except AttributeError as error:
        names = first_few([name for name, _ in network.named_modules() if name], 8)
        raise UserError(f'stages: {error}; the modules are {names}') from error
    if part is None:
        return (module,)
    if not isinstance(module, nn.Sequential):
        raise UserError(f'stages: {part[1]} is no nn.Sequential to take {path} of')
    inside = list(module)[int(part[2] or 0) : int(part[3]) if part[3] else None]
    if not inside:
        raise UserError(f'stages: {path} is empty, {part[1]} has {len(module)} modules')
    return tuple(inside)


def _find_convolutions(
    network: nn.Module, path: str, stage: Stage, names: str | Sequence[str] | None
) -> list[tuple[str, nn.Conv2d]]:
    """Paths and layers of a stage's convolutions that are asked for, in their order."""
    inside = {id(module) for part in stage for module in part.modules()}
    wanted = [names] if isinstance(names, str) else names
    found = []
    for name, module in network.named_modules():
        if id(module) not in inside:
            continue
        if wanted is None:
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
                found.append((name, module))
        elif any(f'.{name}'.endswith(f'.{ending}') for ending in wanted):
            found.append((name, module))
    if not found:
        present = [n for n, m in network.named_modules() if id(m) in inside]
        raise UserError(
            f'stage {path} has no convolution {names or "larger than a pixel"!r}; its modules are '
            f'{first_few(present, 8)}'
        )
    for name, module in found:
        _check_convolution(name, module)
    return found  # type: ignore[return-value]


def _check_convolution(name: str, conv: Any) -> None:
    if not isinstance(conv, nn.Conv2d):
        raise UserError(f'{name} is a {type(conv).__name__}, not an nn.Conv2d')
    faults = []
    if conv.groups not in (1, conv.in_channels):
        faults.append(f'is grouped (groups={conv.groups} of {conv.in_channels} channels)')
    elif conv.groups > 1 and conv.out_channels != conv.in_channels:
        faults.append(f'makes {conv.out_channels} channels of {conv.groups} groups')
    if isinstance(conv.padding, str) or conv.padding_mode != 'zeros':
        faults.append(f'pads by {conv.padding!r}, {conv.padding_mode!r}')
    own = type(conv).forward not in (nn.Conv2d.forward, ContextualConv2d.forward)
    if own and type(conv).__module__.partition('.')[0] != 'mmcv':
        faults.append(f'is a {type(conv).__name__}, which convolves in its own way')
    if hasattr(conv, 'parametrizations'):
        faults.append('has a parametrized weight')
    if faults:
        raise UserError(
            f'{name} {" and ".join(faults)}: only dense and depthwise convolutions with a fixed '
            'padding of zeros become contextual; name others by `convolutions`'
        )


def _predictor_sizes(conv: nn.Conv2d) -> dict:
    """As in the paper's ResNet, dense, and ConvNeXt, depthwise."""
    if conv.groups > 1:
        return dict(depthwise_predictor=True, weight_offset_hidden=max(conv.in_channels // 32, 1))
    hidden = max(conv.in_channels // 4, 1)
    return dict(sampling_offset_hidden=hidden, weight_offset_hidden=hidden)


def _channels(
    network: nn.Module, paths: Sequence[str], stages: Sequence[Stage], example: Tensor | None
) -> list[int]:
    """Channels of the stages' maps, as the network's run on an example shows them."""
    seen: list[tuple[int, Any]] = []
    handles = [
        stage[-1].register_forward_hook(lambda m, args, out, i=i: seen.append((i, out)))
        for i, stage in enumerate(stages)
    ]
    parameter = next(network.parameters())
    if example is None:
        example = torch.zeros(1, 3, 224, 224).to(parameter)
    try:
        with eval_mode(network), torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    if [index for index, _ in seen] != list(range(len(stages))):
        order = [paths[index] for index, _ in seen]
        raise UserError(f'stages should run once each in their order, {list(paths)}, not {order}')
    for path, (_, output) in zip(paths, seen):
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(f'stage {path} should give a map (B, C, H, W), not {shape}')
    return [output.shape[1] for _, output in seen]
