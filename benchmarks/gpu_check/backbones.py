"""Comparison of every shipped backbone with the reference, in float32 and under autocast."""

import json
import math
from copy import deepcopy
from statistics import median

import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

from benchmarks.speed.model_check import TOLERANCES, reference_backend, relative_error
from benchmarks.speed.networks import randomize_predictors
from benchmarks.timing import comparable_convolutions
from mmctx.compat.config_paths import config_dir
from mmctx.models.layers.contextual_conv import PriorInputConv2d
from mmctx.registry import MODELS

from .sizes import Place, narrow
from .smooth import make_smooth

GROUPS = {
    'convnext': ('ctx_convnext_*_in1k.py', 'mask_rcnn_ctx_convnext_t_coco.py'),
    'resnet': ('ctx_resnet50_in1k.py', 'tsm_ctx_resnet50_k400.py'),
    'ablations': ('ablations/*.py',),
}
# Limit for the gradients of all parameters as one vector, in float32: rounding moves few values
# across a kink, but a single gradient may change a lot.
GRADIENT_TOLERANCE = 1e-2
# Limits for the gradient of each parameter, on its own scale, in a network without kinks: for the
# median and the largest error. The errors of some hundred roundings grow with the square root of
# their number, and more where terms cancel. On a CPU they were up to 50 and 190 times half a unit
# in the last place in both half types; the limits are 64 and 256 times, which still finds a
# gradient that is missing or counted twice. In float32, where only the order of sums differs, they
# were up to 5e-6 and 2e-5.
SMOOTH_TOLERANCES = {
    torch.float32: (1e-4, 1e-2),
    torch.float16: (2**-5, 2**-3),
    torch.bfloat16: (2**-2, 0.9),
}
DTYPES = {
    'cuda': (torch.float32, torch.bfloat16, torch.float16),
    'cpu': (torch.float32, torch.bfloat16),
}
# For networks on a CPU: narrower predictors would have one hidden channel, which LayerNorm zeroes.
WIDTH = 4
IMAGES = (4, 3, 64, 96)
FRAMES = 4
LARGEST_SCALE = 2.0**16
# Smaller gradients count as zero.
TINY = 1e-12


def cases(group: str, place: Place) -> dict[str, ConfigDict]:
    """List the backbones of a group's configs, each once.

    Args:
        group (str): Name of the group, one of `GROUPS`.
        place (Place): Device and folder of the check.

    Returns:
        dict[str, ConfigDict]: Backbones by the name of their config. If an ImageNet config does not
        set the preset, the backbone is also there with `preset='released'`.
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
                backbone.update(narrow(backbone, WIDTH))
            add(file.stem, backbone)
            if group != 'ablations' and 'preset' not in backbone:
                add(f'{file.stem}, released', ConfigDict(backbone, preset='released'))
    return found


def build(backbone: ConfigDict) -> nn.Module:
    """Build a backbone with random predictors; predictors that are zero would hide errors."""
    init_default_scope('mmpretrain')
    model = randomize_predictors(MODELS.build(deepcopy(backbone)))
    for module in model.modules():
        if isinstance(module, PriorInputConv2d):
            nn.init.normal_(module.prior_weight, std=float(module.weight.detach().std()))
    return model.eval()


def outputs_and_gradients(
    model: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Run a backbone forward and backward.

    Args:
        model (nn.Module): The backbone.
        images (Tensor): Images, (B, 3, H, W).
        dtype (torch.dtype): Data type for autocast. Defaults to float32, no autocast.

    Returns:
        tuple[list[Tensor], dict[str, Tensor]]: Outputs in float32 and, by parameter, the gradients
        of their projection on random vectors; infinite if no loss scale makes them finite.
    """
    with torch.autocast(images.device.type, dtype, enabled=dtype is not torch.float32):
        outputs = model(images)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    outputs = [out.float() for out in outputs]
    loss = sum(map(_projection, outputs))
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # The loss scale is searched downwards, as by GradScaler.
    scale = LARGEST_SCALE if dtype is torch.float16 else 1.0
    while True:
        found = torch.autograd.grad(
            loss * scale, list(names.values()), retain_graph=True, allow_unused=True
        )
        gradients = {n: g / scale for n, g in zip(names, found, strict=True) if g is not None}
        if scale <= 1 or all(g.isfinite().all() for g in gradients.values()):
            return [out.detach() for out in outputs], gradients
        scale /= 4


def _projection(output: Tensor) -> Tensor:
    # A sum of squares would be constant after a LayerNorm.
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(output.shape, generator=draw).to(output.device)
    return (output.masked_fill(~output.isfinite(), 0) * direction).sum() / output.numel() ** 0.5


def error_of_each(got: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Compute the relative error of the gradient of each parameter, on its own scale.

    Args:
        got (dict[str, Tensor]): Gradients by parameter.
        expected (dict[str, Tensor]): Correct gradients of the same parameters.

    Returns:
        dict[str, float]: Error by parameter; infinite for a gradient that is not finite.
    """
    errors = {}
    for name, exact in expected.items():
        error = float((got[name] - exact).norm() / exact.norm().clamp_min(TINY))
        errors[name] = error if math.isfinite(error) else math.inf
    return errors


class Comparison:
    """Comparison of a backbone with the reference back end in float32.

    Args:
        model (nn.Module): The backbone, changed in place.
        device (str): Device of the comparison, 'cuda' or 'cpu'.

    Attributes:
        errors (dict[str, float]): Relative errors by the name of the compared value.
        wrong (list[str]): Lines that name the errors that are too large.
    """

    def __init__(self, model: nn.Module, device: str):
        self.errors: dict[str, float] = {}
        self.wrong: list[str] = []
        self.model = model.to(device)
        self.dtypes = DTYPES[device]
        self.images = torch.rand(IMAGES, generator=torch.Generator().manual_seed(0)).to(device)

    def run(self) -> None:
        """Compare outputs, then the gradients of the same network without kinks."""
        for dtype, name, (outputs, gradients), (expected, exact) in self._results():
            pairs = [*zip(outputs, expected, strict=True)]
            # The largest error or NaN, which `max` may miss.
            error = float(torch.tensor([relative_error(*pair) for pair in pairs]).max())
            self._hold(name, error, TOLERANCES[dtype])
            if dtype is torch.float32:
                whole = (torch.cat([g.flatten() for g in set_.values()])
                         for set_ in (gradients, exact))  # fmt: skip
                self._hold(f'{name} gradients', relative_error(*whole), GRADIENT_TOLERANCE)
        with reference_backend():
            make_smooth(self.model, self.images)
        for dtype, name, (_, gradients), (_, exact) in self._results():
            each = error_of_each(gradients, exact)
            worst = max(each, key=each.get)
            half, largest = SMOOTH_TOLERANCES[dtype]
            self._hold(f'{name} median gradient', median(each.values()), half)
            self._hold(f'{name} worst gradient', each[worst], largest, worst)

    def _results(self):
        """Yield each type and its name, with results and expected results."""
        model, images = self.model, self.images
        with reference_backend():
            expected = outputs_and_gradients(model, images)
        for dtype in self.dtypes:
            # The others use PyTorch's default memory format, as both formats are in use.
            if dtype is torch.float16:
                model.to(memory_format=torch.channels_last)
                images = images.to(memory_format=torch.channels_last)
            got = outputs_and_gradients(model, images, dtype)
            name = str(dtype).removeprefix('torch.')
            lost = sorted(got[1].keys() ^ expected[1].keys())
            if lost:
                self.wrong.append(f'{name}: gradients differ in {lost[:3]}')
            else:
                yield dtype, name, got, expected

    def _hold(self, name: str, error: float, limit: float, where: str = '') -> None:
        self.errors[name] = error
        # Every comparison with NaN is false.
        if not error <= limit:
            place = f' of {where}' if where else ''
            self.wrong.append(f'{name}{place}: relative error {error:.2g} over {limit:g}')


def check(group: str, place: Place) -> dict:
    """Compare the backbones of a group.

    Args:
        group (str): Name of the group, one of `GROUPS`.
        place (Place): Device and folder of the check.

    Returns:
        dict: Number of backbones, and the largest error of each kind.

    Raises:
        RuntimeError: A backbone is wrong or cannot be run; all others have been run, too.
    """
    largest, failed = {}, []
    found = cases(group, place)
    for name, backbone in found.items():
        torch.manual_seed(0)
        try:
            with comparable_convolutions():
                comparison = Comparison(build(backbone), place.device)
                comparison.run()
            errors, wrong = comparison.errors, comparison.wrong
        except Exception as error:
            # A backbone that cannot be run must not hide errors of the others.
            errors, wrong = {}, [f'{type(error).__name__}: {error}']
        figures = ', '.join(f'{key} {value:.2g}' for key, value in errors.items())
        print(f'{name}: {figures}', *wrong, sep='\n  ', flush=True)
        failed += [f'{name}, {reason}' for reason in wrong]
        for key, value in errors.items():
            largest[key] = max(value, largest.get(key, 0.0))
    if failed:
        raise RuntimeError('; '.join(failed))
    return dict(backbones=len(found), **largest)
