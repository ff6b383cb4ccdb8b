"""`torch.compile` of a classifier: one graph, compiled once for all image sizes."""

from operator import le

import torch
import torch._dynamo as dynamo
from mmengine.config import Config
from torch._dynamo.utils import counters

from benchmarks.speed.model_check import TOLERANCES, relative_error
from benchmarks.speed.networks import randomize_predictors
from benchmarks.timing import comparable_convolutions
from mmctx.apis.classifier import build_classifier
from mmctx.compat.config_paths import config_dir

from .backbones import GRADIENT_TOLERANCE
from .sizes import Place, narrow

CONFIG = 'ctx_convnext_t_in1k.py'
# The first size is compiled; the graph must not depend on it. The number of images is constant.
SIZES = ((96, 160), (128, 96), (64, 192), (160, 160))
ARCH = dict(depths=[1, 1, 4, 1], channels=[96, 192, 384, 768])
LIMITS = (TOLERANCES[torch.float32], GRADIENT_TOLERANCE)


def check(place: Place) -> dict:
    """Compile, and compare scores and gradients with those of the eager network at several sizes.

    Args:
        place (Place): Device and folder of the check; on a CPU the network is only traced, because
            compiling takes minutes there.

    Returns:
        dict: Number of graphs and the largest relative errors.

    Raises:
        RuntimeError: Results differ, or another size was compiled again.
    """
    backbone = Config.fromfile(config_dir() / CONFIG).model.backbone
    backbone.drop_path_rate = 0.0
    # At full depth tracing takes minutes; these blocks include all kinds.
    backbone.update(narrow(backbone) if place.small else dict(arch=ARCH))
    torch.manual_seed(0)
    model = randomize_predictors(build_classifier(backbone)).to(place.device).eval()
    dynamo.reset()
    counters.clear()
    backend = 'eager' if place.small else 'inductor'
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    largest = (0.0, 0.0)
    with comparable_convolutions():
        for size in SIZES:
            images = torch.rand(2, 3, *size, device=place.device)
            # Compilation fails where code is specialized to one height or width.
            dynamo.mark_dynamic(images, (2, 3))
            pairs = zip(_run(compiled, images), _run(model, images), strict=True)
            errors = [relative_error(*pair) for pair in pairs]
            graphs = counters['stats']['unique_graphs']
            print(f'{size}: scores {errors[0]:.2g}, gradients {errors[1]:.2g}, {graphs} graphs')
            if not all(map(le, errors, LIMITS)):
                raise RuntimeError(f'relative errors at {size}: {errors} over {LIMITS}')
            largest = tuple(map(max, largest, errors))
    if graphs != 1:
        raise RuntimeError(f'{graphs} graphs for {len(SIZES)} image sizes, not 1')
    return dict(graphs=graphs, scores=largest[0], gradients=largest[1])


def _run(model, images):
    scores = model(images)
    parameters = [p for p in model.parameters() if p.requires_grad]
    finite = scores.masked_fill(~scores.isfinite(), 0)
    found = torch.autograd.grad(finite.square().mean(), parameters, allow_unused=True)
    return scores.detach(), torch.cat([g.flatten() for g in found if g is not None])
