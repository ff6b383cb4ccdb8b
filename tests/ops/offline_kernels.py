"""Binds and compiles what the Triton back end would launch, for a GPU that need not be there.

Run in a process of its own, as Triton's interpreter replaces the kernels where it is on; prints
JSON. `python offline_kernels.py sizes`: variants of each kernel over many image sizes.
`combinations`: every combination of optional arguments and gradients, as far as Triton's own
representation, which is where the compiler is stricter than the interpreter. `networks CAPABILITY
DTYPE...`: what the layers of all shipped backbones launch, down to machine code, and in the other
types as far as that representation; with `sample` instead, each kind of arguments and each size of
tiles down to machine code, but not every pair.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

os.environ['MMCTX_BACKEND'] = 'triton'
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import triton
from compiling import Compiler
from saved_time import save_time
from triton.runtime.jit import JITFunction

import mmctx  # noqa: F401 - registers the backbones
from mmctx.ops import contextual_conv2d
from mmctx.ops.triton import import_kernels, operator

REPO = Path(__file__).parents[2]
CUOBJDUMP = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'
OPTIONAL = ('bias', 'sampling_offset', 'weight_offset', 'mask', 'mask_logits')


class Recorder:
    """Takes the place of launching: keeps the variant that Triton would compile for each call.

    Args:
        capability (int): Compute capability of the GPU without its dot.
    """

    def __init__(self, capability: int):
        self.compiler = Compiler(capability)
        self.variants = {}
        # Kernels that are defined later would be interpreted.
        import_kernels()

        def run(kernel, *args, grid, warmup, **kwargs):
            variant = self.compiler.bind(kernel, args, kwargs)
            self.variants[variant.key] = variant

        JITFunction.run = run
        triton.knobs.runtime.interpret = True

    def compile(self, variant):
        """Compile a variant to machine code; what it takes of a GPU.

        That is registers, bytes spilled, bytes of the widest load, and whether matrices are
        transposed in shared memory.
        """
        compiled = self.compiler.machine_code(variant)
        with tempfile.NamedTemporaryFile(suffix='.cubin') as cubin:
            cubin.write(compiled.asm['cubin'])
            cubin.flush()
            usage = subprocess.run(
                [CUOBJDUMP, '--dump-resource-usage', cubin.name], capture_output=True, text=True
            ).stdout
        loads = re.findall(r'ld\.global(?:\.v(\d))?\.b(\d+)', compiled.asm['ptx'])
        return dict(
            registers=int(re.search(r'REG:(\d+)', usage)[1]),
            spilled=int(re.search(r'STACK:(\d+)', usage)[1]),
            widest_load=max((int(count or 1) * int(bits) // 8 for count, bits in loads), default=0),
            transposes=bool(re.search(r'ldmatrix\S*\.trans', compiled.asm['ptx'])),
        )


def tensors_of(shape, channels, depthwise, dtype, stride=1):
    """Arguments of one case by name, with everything that a call can have."""
    batch, height, width = shape
    side, padding = (7, 3) if depthwise else (3, 1)
    taps = side * side
    out = [(n - 1) // stride + 1 for n in (height, width)]
    sampling_offset, mask = torch.zeros(batch, 3 * taps, *out).split([2 * taps, taps], 1)
    tensors = dict(
        x=torch.zeros(batch, channels, height, width, dtype=dtype),
        weight=torch.zeros(channels, 1 if depthwise else channels, side, side),
        bias=torch.zeros(channels),
        sampling_offset=sampling_offset,
        weight_offset=torch.zeros(
            batch, *((channels, 1) if depthwise else (1, channels)), side, side
        ),
        mask=mask,
        mask_logits=mask,
    )
    return tensors, dict(stride=stride, padding=padding)


def run_case(tensors, options, given, needed):
    """Forward, and backward for the gradients needed, through the front door."""
    leaves = {k: v.detach().requires_grad_(k in needed) for k, v in tensors.items() if k in given}
    out = contextual_conv2d(**leaves, **options)
    if needed:
        torch.autograd.grad(out, [leaves[k] for k in needed], torch.zeros_like(out))


def run_combinations(dtype):
    """Each set of optional arguments, with no gradient, each alone and all of them.

    bfloat16 takes the paths of float16, so no argument and all of them tell enough there.
    """
    sets = [
        {name for name, is_given in zip(OPTIONAL, chosen) if is_given}
        for chosen in itertools.product((False, True), repeat=len(OPTIONAL))
    ]
    sets = [chosen for chosen in sets if not {'mask', 'mask_logits'} <= chosen]
    if dtype is torch.bfloat16:
        sets = [chosen for chosen in sets if len(chosen) in (0, len(OPTIONAL) - 1)]
    for depthwise in (True, False):
        tensors, options = tensors_of((2, 9, 7), 192, depthwise, dtype)
        for chosen in sets:
            given = ['x', 'weight', *(name for name in OPTIONAL if name in chosen)]
            for needed in ([], *([name] for name in given), given):
                run_case(tensors, options, given, needed)
        with mock.patch.object(operator, 'needs_operators', lambda x: True):
            # As under torch.compile, where backward makes the tables again.
            run_case(tensors, options, given, given)
    torch.use_deterministic_algorithms(True)
    run_case(tensors, options, ['x', 'weight'], ['x'])


def shipped_layers():
    """Contextual layers of every backbone that a config has, one of each kind."""
    from mmengine.config import Config

    from mmctx.models.layers import ContextualConv2d, Contextualizing
    from mmctx.registry import MODELS

    found, built = {}, set()
    save_time()
    # Values are not looked at, and drawing them takes most of the time.
    for name in ('kaiming_uniform_', 'kaiming_normal_', 'uniform_', 'normal_', 'trunc_normal_'):
        setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    for path in sorted(REPO.glob('configs/**/*.py')):
        if '_base_' in path.parts:
            continue
        backbone = Config.fromfile(path).model.get('backbone', {})
        if not str(backbone.get('type')).startswith('mmctx.Contextual'):
            continue
        for preset in ('paper', 'released'):
            arguments = {**backbone, 'preset': preset, 'init_cfg': None}
            if str(arguments) in built:
                continue
            built.add(str(arguments))
            for layer in MODELS.build(arguments).modules():
                if isinstance(layer, ContextualConv2d | Contextualizing):
                    # Numbers of channels with the same power of 2 differ as constants only.
                    kind = re.sub(
                        r'\d+', lambda n: str(min(int(n[0]) & -int(n[0]), 64)), str(layer)
                    )
                    found.setdefault(kind, layer)
    return list(found.values())


def run_networks(layers, dtype):
    """What layers launch for a small image, and with the tiles that they have for large ones."""
    from mmctx.ops.layer_memory import LayerMemory
    from mmctx.ops.triton import forward, hidden_layers, layer_forward

    run_layers(layers, dtype)
    caches = layer_forward.layer_forward_of, forward.forward_of
    for cache in caches:
        cache.cache_clear()
    for layer in layers:
        layer.memory = LayerMemory()
    with (
        mock.patch.object(hidden_layers, 'PROGRAMS', 0),
        mock.patch.object(forward, 'ENOUGH_PROGRAMS', 0),
    ):
        run_layers(layers, dtype)
    for cache in caches:
        cache.cache_clear()


def run_layers(layers, dtype):
    """Inference and training of each layer, under autocast in half precision."""
    from mmctx.models.layers import Contextualizing, using_prior

    for layer in layers:
        if isinstance(layer, Contextualizing):
            run_stages(layer, dtype)
            continue
        predictor = layer.sampling_offset_predictor or layer.weight_offset_predictor
        prior_channels = predictor[0].weight.shape[1] - layer.in_channels
        prior = torch.zeros(2, prior_channels)
        x = torch.zeros(2, layer.in_channels, 2, 2, requires_grad=True)
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32), using_prior(prior):
            with torch.no_grad():
                layer.eval()(x)
            out = layer.train()(x)
        out.sum().backward()


def run_stages(layer, dtype):
    """What each stage of contextualizing layers launches in inference and training."""
    from mmctx.models.losses import StagewiseCrossEntropy

    with torch.no_grad():  # what subclasses and options call
        layer.merging[0]['each'](layer.embeddings.weight)
        layer.class_directions()
    for training in (False, True):
        layer.train(training)
        kept, loss, scores = None, 0.0, []
        for index, classifying in enumerate(layer.classifying):
            x = torch.zeros(2, classifying[0].in_features, 2, 2)
            autocast = torch.autocast('cpu', dtype, enabled=dtype != torch.float32)
            with torch.set_grad_enabled(training), autocast:
                logits, kept, prior = layer(x, index, kept)
            scores.append(logits)
            loss = loss + (0 if prior is None else prior.sum())
        if training:
            classes = logits.shape[1]
            of_stages = StagewiseCrossEntropy((1.0,) * len(scores))
            for target in (torch.zeros(2, dtype=torch.long), torch.zeros(2, classes)):
                loss = loss + sum(of_stages(scores, target))
            loss.backward()


# Constants that change the length of loops, and how many values can be loaded at a time.
NUMBERS = 'PRIOR', 'CHANNELS', 'HIDDEN', 'INPUTS', 'OUTPUTS', 'OUT_CHANNELS', 'LENGTH'


def kinds(variant):
    """What a variant is compiled for: its pointers and options, and the sizes of its tiles."""
    kernel, _, bound, specialization, options = variant
    arguments, sizes = [], []
    for name, argument in zip(kernel.arg_names, specialization, strict=True):
        value = bound[name]
        if name in NUMBERS:
            sizes.append(min(value & -value, 16))
        elif name.isupper() and isinstance(value, int):
            sizes.append(value)
        elif name != 'EPS':
            arguments.append(argument)
    return (kernel.__name__, str(arguments), str(options)), (kernel.__name__, *sizes)


def main():
    mode, *rest = sys.argv[1:]
    recorder = Recorder(int(rest[0]) if rest else 90)
    report = {}
    if mode == 'sizes':
        for shape in [(1, 1, 1), (1, 7, 7), (2, 16, 16), (3, 25, 42), (2, 32, 17), (16, 5, 48)]:
            for stride, depthwise in itertools.product((1, 2), (True, False)):
                tensors, options = tensors_of(shape, 64, depthwise, torch.float16, stride)
                given = [name for name in tensors if name != 'mask']
                run_case(tensors, options, given, given)
        for name, *_ in recorder.variants:
            report[name] = report.get(name, 0) + 1
    elif mode == 'combinations':
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            run_combinations(dtype)
        for (name, *_), variant in recorder.variants.items():
            recorder.compiler.represent(variant)
            report[name] = report.get(name, 0) + 1
    else:
        layers = shipped_layers()
        for dtype in rest[1:]:
            run_networks(layers, getattr(torch, dtype))
        found, represented = set(), set()
        for variant in recorder.variants.values():
            pointers, sizes = kinds(variant)
            # Each of them once, or each pair.
            new = {pointers, sizes} if mode == 'sample' else {(pointers, sizes)}
            if not new <= found:
                found |= new
                represented.add(pointers)
                name = f'{len(report)} {variant[0].__name__}'
                report[name] = recorder.compile(variant)
        for dtype in {'float16', 'bfloat16', 'float32'} - set(rest[1:]):
            run_networks(layers, getattr(torch, dtype))
        for variant in recorder.variants.values():
            pointers, _ = kinds(variant)
            if pointers not in represented:
                represented.add(pointers)
                recorder.compiler.represent(variant)
    print(json.dumps(report))


if __name__ == '__main__':
    main()
