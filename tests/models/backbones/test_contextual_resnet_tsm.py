"""Contextual ResNet on clips: the shift written out, vanilla TSM at first, weights that load."""

import copy
import subprocess
import sys

import pytest
import torch
import torchvision
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.models import ResNet

from mmctx.checkpoints.fitting import Weights, check_fit
from mmctx.errors import UserError
from mmctx.models.backbones import ContextualResNet, ContextualResNetTSM
from mmctx.models.layers import ContextualConv2d

NARROW = dict(stem_channels=16, base_channels=16)
SMALL = dict(num_classes=20, considered=(10, 6, 3), embed_dims=16, **NARROW)


def make(depth=50, num_segments=4, **options):
    return ContextualResNetTSM(depth, num_segments, **{**SMALL, **options})


def randomize(model):
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim > 1:
            value.normal_(std=value[0].numel() ** -0.5)
        elif value.is_floating_point():
            value.normal_(mean=float(name.endswith('weight')), std=0.2)
    return model


def assert_equal(got, expected, name=''):
    """Equal up to rounding, of which random weights make much."""
    atol = 1e-9 * expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=atol, msg=name or None)


def gradients(model):
    """Gradients of the trainable parameters by their names in a network without shift."""
    learning = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return {name.replace('.net.', '.'): parameter.grad for name, parameter in learning}


def shifted(x, frames, div):
    """The temporal shift, frame by frame: zeros stand for what no frame gives."""
    out, fold = x.clone(), x.shape[1] // div
    for index in range(len(x)):
        first, last = index % frames == 0, index % frames == frames - 1
        out[index, :fold] = 0 if last else x[index + 1, :fold]
        out[index, fold : 2 * fold] = 0 if first else x[index - 1, fold : 2 * fold]
    return out


def shift_by_hand(model, frames, div=8, every=1):
    """Have a network on images shift before the first convolution of its blocks."""
    for stage in range(1, 5):
        for block in list(model.blocks_of(stage))[::every]:
            block.conv1.register_forward_pre_hook(lambda _, args: shifted(args[0], frames, div))
    return model


SHIFTS = {
    'one clip': dict(clips=1),
    'three frames': dict(frames=3, size=(33, 75)),
    'one frame': dict(frames=1, clips=3),
    'quarters': dict(div=4),
    'basic blocks': dict(depth=18),
    'every second block': dict(depth=101, every=2, frames=2, size=(32, 32)),
    'modulated': dict(options=dict(preset='released')),
    'prior as input': dict(options=dict(prior='input')),
    'no prior': dict(options=dict(prior='none')),
}


@pytest.mark.parametrize('case', SHIFTS.values(), ids=SHIFTS)
def test_against_a_shift_written_out(case):
    case = dict(
        dict(depth=50, frames=4, clips=2, div=8, every=1, size=(48, 32), options={}), **case
    )
    frames = case['frames']
    plain = randomize(ContextualResNet(case['depth'], **SMALL, **case['options'])).double().eval()
    model = make(case['depth'], frames, shift_div=case['div'], **case['options']).double().eval()
    model.load_state_dict(plain.state_dict())
    shift_by_hand(plain, frames, case['div'], case['every'])
    results = []
    for network in (plain, model):
        torch.manual_seed(1)
        x = torch.randn(case['clips'] * frames, 3, *case['size']).double().requires_grad_()
        output = network(x)
        (output,) = output if network is plain else [output]
        output.square().mean().backward()
        results.append({'output': output.detach(), 'x': x.grad, **gradients(network)})
    assert results[0].keys() == results[1].keys()
    assert results[0]['x'].abs().max() > 0
    for name, value in results[0].items():
        assert_equal(results[1][name], value, name)


@pytest.mark.parametrize(('depth', 'options'), [(50, {}), (101, dict(shift_div=4))])
def test_vanilla_weights_give_the_features_of_mmaction2(depth, options, tmp_path):
    from mmaction.models import ResNetTSM

    path = str(tmp_path / 'resnet.pth')
    torch.save(randomize(getattr(torchvision.models, f'resnet{depth}')()).state_dict(), path)
    vanilla = ResNetTSM(depth, num_segments=3, pretrained=path, **options)
    pretrained = dict(type='Pretrained', checkpoint=path)
    contextual = ContextualResNetTSM(depth, num_segments=3, init_cfg=pretrained, **options)
    results = []
    for model in (vanilla, contextual):
        model.init_weights()
        torch.manual_seed(1)
        x = torch.randn(3, 3, 40, 32).double().requires_grad_()
        # mmaction2's `eval` returns nothing.
        model.double().eval()
        output = model(x)
        (output / output.detach().abs().max()).square().sum().backward()
        results.append((output.detach(), x.grad))
    for got, expected in zip(results[1], results[0], strict=True):
        assert_equal(got, expected)
    assert x.grad.abs().max() > 0


def colourful(frames, height, width):
    """Frames so unlike that different classes are kept."""
    colours = 3 * torch.randn(frames, 3, 1, 1).double()
    return colours + torch.randn(frames, 3, height, width).double()


def record_priors(model, x):
    """Stage by stage: what merging makes of each frame, and what the convolutions are given."""
    made, given, hooks = [], {}, []
    for merging in model.contextualizing.merging:
        hooks.append(merging['joint'].register_forward_hook(lambda m, a, out: made.append(out)))
    for name, layer in model.named_modules():
        if isinstance(layer, ContextualConv2d):
            stage = int(name[5]) - 2
            hooks.append(
                layer.register_forward_pre_hook(
                    lambda m, a, stage=stage: given.setdefault(stage, []).append(m.current_prior())
                )
            )
    output = model(x)
    for hook in hooks:
        hook.remove()
    return made, given, output


@pytest.mark.parametrize('average', [False, True])
def test_prior_of_a_frame_and_of_a_clip(average):
    few = dict(num_classes=60, considered=(4, 3, 2))
    model = randomize(make(50, 3, average_prior=average, **few)).double().eval()
    x = colourful(6, 64, 48)
    made, given, output = record_priors(model, x)
    assert output.shape == (6, 512, 2, 2)
    assert [len(given[stage]) for stage in range(3)] == [2, 3, 2]
    for stage, priors in enumerate(made):
        assert len(priors[:3].unique(dim=0)) > 1
        expected = priors.clone()
        if average:
            for clip in (0, 3):
                mean = (priors[clip] + priors[clip + 1] + priors[clip + 2]) / 3
                expected[clip : clip + 3] = mean
        for prior in given[stage]:
            torch.testing.assert_close(prior, expected)
    # Clips know nothing of one another.
    assert_equal(model(x[3:]), output[3:])


def test_averaged_prior_teaches_every_frame():
    model = randomize(make(18, 3, average_prior=True)).double().eval()
    made, given, _ = record_priors(model, torch.randn(6, 3, 64, 64).double())
    made[0].retain_grad()
    given[0][0][1].sum().backward()
    gradient = made[0].grad
    torch.testing.assert_close(gradient[:3], torch.full_like(gradient[:3], 1 / 3))
    assert not gradient[3:].any()


def checkpoints():
    """Weights of several origins, by name: the network and what the file begins its names with."""
    with_prior = ContextualResNet(50, **SMALL)
    return {
        'mmpretrain': (ResNet(50, **NARROW), ''),
        'mmpretrain classifier': (ResNet(50, **NARROW), 'backbone.'),
        'contextual': (with_prior, ''),
        'contextual classifier': (ContextualResNet(50, out_type='logits', **SMALL), 'backbone.'),
        'TSM': (make(), ''),
        'recognizer': (make(), 'backbone.'),
    }


@pytest.mark.parametrize('origin', checkpoints())
def test_weights_of_several_origins_load(origin, tmp_path):
    trained, prefix = checkpoints()[origin]
    expected = {n.replace('.net.', '.'): v for n, v in randomize(trained).state_dict().items()}
    state = {f'{prefix}{name}': value for name, value in trained.state_dict().items()}
    path = str(tmp_path / 'weights.pth')
    torch.save({'state_dict': state}, path)
    model = make(init_cfg=dict(type='Pretrained', checkpoint=path))
    check_fit(torch.nn.ModuleDict(dict(backbone=model)), Weights(path, shapes(state), 'backbone'))
    model.init_weights()
    loaded = {n.replace('.net.', '.'): v for n, v in model.state_dict().items()}
    vanilla = 'mmpretrain' in origin
    unloaded = expected.keys() - loaded.keys()
    assert all(name.startswith('contextualizing.classifying.3.') for name in unloaded)
    assert (loaded.keys() == expected.keys() - unloaded) != vanilla
    for name in expected.keys() - unloaded:
        assert torch.equal(loaded[name], expected[name]), name


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def test_weights_of_another_network_are_refused():
    state = {f'blocks.{i}.weight': torch.zeros(3) for i in range(3)}
    model = torch.nn.ModuleDict(dict(backbone=make()))
    with pytest.raises(UserError, match='of another model'):
        check_fit(model, Weights('x.pth', shapes(state), 'backbone'))


def recognizer(**options):
    from mmaction.registry import MODELS

    init_default_scope('mmaction')
    backbone = dict(type='mmctx.ContextualResNetTSM', num_segments=4, **{**SMALL, **options})
    head = dict(type='TSMHead', num_classes=7, in_channels=512, num_segments=4)
    return MODELS.build(dict(type='Recognizer2D', backbone=backbone, cls_head=head))


def test_checkpoint_of_a_recognizer_round_trips():
    trained = randomize(recognizer())
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    model = recognizer()
    load_state_dict(model, dict(state), strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    copied = copy.deepcopy(model.eval())
    clips = torch.randn(2, 4, 3, 64, 64)
    assert torch.equal(copied(clips, stage='head'), model(clips, stage='head'))


@pytest.mark.parametrize('average', [False, True])
def test_recognizer_learns_with_all_of_its_parameters(average):
    """What DistributedDataParallel needs to run without find_unused_parameters."""
    from mmaction.structures import ActionDataSample

    model = randomize(recognizer(average_prior=average)).train()
    samples = [ActionDataSample().set_gt_label(label) for label in (1, 5)]
    losses = model(torch.randn(2, 4, 3, 64, 64), samples, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert not model.backbone.contextualizing.logit_scale.requires_grad


def test_ten_views_of_a_video_are_scored_as_one():
    from mmaction.structures import ActionDataSample

    model = randomize(recognizer()).eval()
    views = torch.randn(1, 10 * 4, 3, 64, 64)
    model.cls_head.average_clips = 'prob'
    with torch.no_grad():
        (sample,) = model(views, [ActionDataSample()], mode='predict')
        each = model(views.view(10, 4, 3, 64, 64), stage='head')
    torch.testing.assert_close(sample.pred_score, each.softmax(1).mean(0))


@pytest.mark.parametrize('average', [False, True])
def test_gradient_checkpointing_changes_nothing(average):
    plain = randomize(make(average_prior=average))
    saving = make(average_prior=average, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 48, 40)
    results = []
    for model in (plain, saving):
        model.double().eval()
        inputs = x.double().requires_grad_()
        model(inputs).square().mean().backward()
        results.append({'x': inputs.grad, **gradients(model)})
    for name, value in results[0].items():
        assert_equal(results[1][name], value, name)


def test_channels_last_frames():
    model = randomize(make()).double().eval()
    x = torch.randn(8, 3, 48, 40).double()
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    assert_equal(model(x.to(memory_format=torch.channels_last)), expected)


def test_one_map_is_bare_and_several_outputs_are_tuples():
    x = torch.zeros(4, 3, 64, 64)
    maps = make(out_indices=(2, 3)).eval()(x)
    assert [tuple(m.shape) for m in maps] == [(4, 256, 4, 4), (4, 512, 2, 2)]
    logits = make(out_type='logits').eval()(x)
    assert [tuple(scores.shape) for scores in logits] == [(4, 20)] * 4
    assert make().eval()(x).shape == (4, 512, 2, 2)


def test_refuses_a_part_of_a_clip():
    with pytest.raises(ValueError, match='6 frames do not make whole clips of num_segments=4'):
        make()(torch.zeros(6, 3, 64, 64))


@pytest.mark.parametrize(
    'change', [dict(num_segments=0), dict(num_segments=2.0), dict(shift_div=0)]
)
def test_segments_and_shift_must_be_whole_numbers(change):
    with pytest.raises(ValueError, match=f'{next(iter(change))} should be a whole number'):
        make(**change)


def test_only_clips_need_mmaction2():
    code = (
        "import sys; sys.modules['mmaction'] = None\n"
        'from mmctx.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS\n'
        "assert OPTIM_WRAPPER_CONSTRUCTORS.get('TSMOptimWrapperConstructor')\n"
        "MODELS.build(dict(type='mmctx.ContextualResNet', depth=18))\n"
        "MODELS.build(dict(type='mmctx.ContextualResNetTSM', depth=18))"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert "No module named 'mmaction" in result.stderr, result.stderr
    assert 'line 5, in <module>' in result.stderr
