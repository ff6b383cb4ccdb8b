"""Every shipped backbone, in float32 and under autocast, forward and backward, by the reference."""

import json
import math
from copy import deepcopy

import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from benchmarks.speed.model_check import TOLERANCES, reference_backend, relative_error
from benchmarks.speed.networks import randomize_predictors
from benchmarks.timing import comparable_convolutions
from mmctx.compat.config_paths import config_dir
from mmctx.layers.contextual_conv import PriorInputConv2d
from mmctx.registry import MODELS

from .sizes import Place, narrow

GROUPS = {
    'convnext': ('ctx_convnext_*_in1k.py', 'mask_rcnn_ctx_convnext_t_coco.py'),
    'resnet': ('ctx_resnet50_in1k.py', 'tsm_ctx_resnet50_k400.py'),
    'ablations': ('ablations/*.py',),
}
# Of the gradients of all parameters as one vector. A few can make up most of it, at the kinks of
# bilinear sampling and where rounding swaps two classes of a stage: over three seeds a CPU showed
# up to 4e-5, 0.1 and 0.3. Kernels that are wrong are found in float32, and by the op's tests.
GRADIENT_TOLERANCES = {torch.float32: 1e-2, torch.float16: 0.25, torch.bfloat16: 0.6}
DTYPES = {
    'cuda': (torch.float32, torch.bfloat16, torch.float16),
    'cpu': (torch.float32, torch.bfloat16),
}
IMAGES = (4, 3, 64, 96)
FRAMES = 4
LARGEST_SCALE = 2.0**16


def cases(group: str, place: Place) -> dict[str, ConfigDict]:
    """The backbones of a group's configs, each once.

    Args:
        group (str): One of `GROUPS`.
        place (Place): Where they run.

    Returns:
        dict[str, ConfigDict]: Backbones by the name of their config; where an ImageNet config
        leaves the preset open, also with `preset='released'`.
    """
    found, seen = {}, set()

    def add(name, backbone):
        key = json.dumps(backbone, sort_keys=True)
        if key not in seen:
            seen.add(key)
            found[name] = backbone

    for pattern in GROUPS[group]:
        for file in sorted(config_dir().glob(pattern)):
            backbone = Config.fromfile(file).model.backbone
            if not backbone.type.startswith('mmctx.Contextual'):
                continue
            for key in ('init_cfg', 'drop_path_rate'):
                backbone.pop(key, None)
            if 'num_segments' in backbone:
                backbone.num_segments = FRAMES
            if place.small:
                backbone.update(narrow(backbone))
            add(file.stem, backbone)
            if group != 'ablations' and 'preset' not in backbone:
                add(f'{file.stem}, released', ConfigDict(backbone, preset='released'))
    return found


def build(backbone: ConfigDict) -> nn.Module:
    """A backbone whose predictors matter; they start at zero, where a fault could not be seen."""
    init_default_scope('mmpretrain')
    model = randomize_predictors(MODELS.build(deepcopy(backbone)))
    for module in model.modules():
        if isinstance(module, PriorInputConv2d):
            nn.init.normal_(module.prior_weight, std=float(module.weight.detach().std()))
    return model.eval()


def outputs_and_gradients(
    model: nn.Module, images: torch.Tensor, dtype: torch.dtype = torch.float32
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Run a backbone forward and backward.

    Args:
        model (nn.Module): The backbone.
        images (Tensor): (B, 3, H, W).
        dtype (torch.dtype): Of autocast. Defaults to float32, no autocast.

    Returns:
        tuple[list[Tensor], dict[str, Tensor]]: Outputs in float32, and by parameter the gradient of
        the sum of their mean squares, infinite where no loss scale makes it finite.
    """
    with torch.autocast(images.device.type, dtype, enabled=dtype is not torch.float32):
        outputs = model(images)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    outputs = [out.float() for out in outputs]
    loss = sum(out[out.isfinite()].square().mean() for out in outputs)
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # As a GradScaler finds it.
    scale = LARGEST_SCALE if dtype is torch.float16 else 1.0
    while True:
        found = torch.autograd.grad(
            loss * scale, list(names.values()), retain_graph=True, allow_unused=True
        )
        gradients = {n: g / scale for n, g in zip(names, found, strict=True) if g is not None}
        if scale <= 1 or all(g.isfinite().all() for g in gradients.values()):
            return [out.detach() for out in outputs], gradients
        scale /= 4


def compare(model: nn.Module, device: str) -> tuple[dict[str, float], list[str]]:
    """Hold a backbone, in float32 and under autocast, to the reference back end in float32.

    Args:
        model (nn.Module): The backbone.
        device (str): 'cuda' or 'cpu'.

    Returns:
        tuple[dict[str, float], list[str]]: Relative errors of outputs and gradients by type, and
        what is wrong.
    """
    model = model.to(device)
    images = torch.rand(IMAGES, generator=torch.Generator().manual_seed(0)).to(device)
    with reference_backend():
        expected, expected_gradients = outputs_and_gradients(model, images)
    errors, wrong = {}, []
    for dtype in DTYPES[device]:
        # The others are in PyTorch's own memory format, as both are in use.
        if dtype is torch.float16:
            model.to(memory_format=torch.channels_last)
            images = images.to(memory_format=torch.channels_last)
        outputs, gradients = outputs_and_gradients(model, images, dtype)
        name = str(dtype).removeprefix('torch.')
        if gradients.keys() != expected_gradients.keys():
            lost = sorted(gradients.keys() ^ expected_gradients.keys())
            wrong.append(f'{name}: gradients differ in {lost[:3]}')
            continue
        pairs = [*zip(outputs, expected, strict=True)]
        whole = [torch.cat([g.flatten() for g in set_.values()])
                 for set_ in (gradients, expected_gradients)]  # fmt: skip
        # The largest, or NaN, which `max` may overlook.
        error = float(torch.tensor([relative_error(*pair) for pair in pairs]).max())
        finite = bool(whole[0].isfinite().all())
        gradient_error = relative_error(*whole) if finite else math.inf
        errors |= {name: error, f'{name} gradients': gradient_error}
        for part, value, limit in (
            ('outputs', error, TOLERANCES[dtype]),
            ('gradients', gradient_error, GRADIENT_TOLERANCES[dtype]),
        ):
            if not value <= limit:
                wrong.append(f'{name} {part}: relative error {value:.2g} over {limit:g}')
    return errors, wrong


def check(group: str, place: Place) -> dict:
    """Compare the backbones of a group.

    Args:
        group (str): One of `GROUPS`.
        place (Place): Where they run.

    Returns:
        dict: Number of backbones, and the largest error of each kind.

    Raises:
        RuntimeError: A backbone is wrong or cannot be run; the others were run, too.
    """
    largest, failed = {}, []
    found = cases(group, place)
    for name, backbone in found.items():
        torch.manual_seed(0)
        try:
            with comparable_convolutions():
                errors, wrong = compare(build(backbone), place.device)
        except Exception as error:
            # One that cannot be run must not hide the others.
            errors, wrong = {}, [f'{type(error).__name__}: {error}']
        figures = ', '.join(f'{key} {value:.2g}' for key, value in errors.items())
        print(f'{name}: {figures}', *wrong, sep='\n  ', flush=True)
        failed += [f'{name}, {reason}' for reason in wrong]
        for key, value in errors.items():
            largest[key] = max(value, largest.get(key, 0.0))
    if failed:
        raise RuntimeError('; '.join(failed))
    return dict(backbones=len(found), **largest)
