"""Contextual ConvNeXt: vanilla features at first, sizes as published, options of its base."""

import re

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models import ConvNeXt

from mmctx.apis import build_classifier, measure_complexity
from mmctx.engine.optimizers import LayerDecayOptimWrapperConstructor
from mmctx.models.backbones import ContextualConvNeXt
from mmctx.models.layers import ContextualConv2d

NARROW = dict(depths=[2, 3, 4, 1], channels=[8, 16, 24, 32])
SMALL = dict(arch=NARROW, num_classes=20, considered=(10, 6, 3), embed_dims=16)
MAPS = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False, layer_scale_init_value=1.0)


def make(**options):
    return ContextualConvNeXt(**{**SMALL, **MAPS, **options})


def randomize(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return model


def assert_same_maps(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def facebook_names(state):
    renamed = {}
    for name, value in state.items():
        for ours, theirs in (
            ('depthwise_conv', 'dwconv'), ('pointwise_conv', 'pwconv'), ('norm3.', 'norm.')
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


CHECKPOINTS = {
    'mmpretrain': lambda s: {
        'state_dict': {
            **{f'backbone.{k}': v for k, v in s.items()},
            'head.fc.bias': s['norm3.bias'],
        }
    },
    'facebookresearch': lambda s: {'model': {**facebook_names(s), 'head.weight': s['norm3.bias']}},
    'bare': lambda s: s,
}


@pytest.mark.parametrize('layout', CHECKPOINTS)
@pytest.mark.parametrize('size', [(64, 64), (33, 75)])
def test_vanilla_checkpoints_give_vanilla_features(layout, size, tmp_path):
    vanilla = randomize(ConvNeXt(NARROW, **MAPS))
    path = tmp_path / 'vanilla.pth'
    torch.save(CHECKPOINTS[layout](vanilla.state_dict()), path)
    contextual = make(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    contextual.init_weights()
    x = torch.randn(1, 3, *size)
    vanilla.eval(), contextual.eval()
    assert_same_maps(contextual(x), vanilla(x))


def test_trained_predictors_bend_the_features():
    model = make()
    model.eval()
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    for layer in model.modules():
        if isinstance(layer, ContextualConv2d):
            torch.nn.init.normal_(layer.sampling_offset_predictor[-1].weight, std=0.5)
    after = model(x)
    assert torch.equal(before[0], after[0])
    for a, b in zip(before[1:], after[1:]):
        assert not torch.allclose(a, b, rtol=1e-2)


def test_initialization_leaves_the_predictors_at_zero():
    model = make()
    model.init_weights()
    contextual = [m for m in model.modules() if isinstance(m, ContextualConv2d)]
    assert contextual
    for layer in contextual:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert not layer.sampling_offset_predictor[-1].weight.any()
        assert not layer.weight_offset_predictor[-1].weight.any()
        assert layer.weight_offset_predictor[0].weight.any()


def test_pretrained_contextual_weights_survive_initialization(tmp_path):
    trained = randomize(make())
    path = tmp_path / 'contextual.pth'
    classifier = build_classifier(dict(type='mmctx.ContextualConvNeXt', **SMALL))
    state = {f'backbone.{k}': v for k, v in trained.state_dict().items()}
    last = 'backbone.contextualizing.classifying.3.0.weight'
    state[last] = classifier.state_dict()[last]
    torch.save({'state_dict': state}, path)
    loaded = make(init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='backbone.'))
    loaded.init_weights()
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize(('every', 'blocks'), [(1, 8), (2, 5), (3, 4), (9, 3)])
def test_every_chooses_the_blocks(every, blocks):
    model = make(every=every)
    names = [n for n, m in model.named_modules() if isinstance(m, ContextualConv2d)]
    assert len(names) == blocks
    assert all(int(n.split('.')[2]) % every == 0 and n.split('.')[1] != '0' for n in names)


@pytest.mark.parametrize('preset', ['paper', 'released'])
@pytest.mark.parametrize('selection', ['reduce', 'rerank'])
def test_gradient_checkpointing_changes_nothing(preset, selection):
    plain = randomize(make(preset=preset, selection=selection))
    saving = make(preset=preset, selection=selection, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 48, 40)
    results = []
    for model in (plain, saving):
        model.train()
        inputs = x.clone().requires_grad_()
        sum(m.square().mean() for m in model(inputs)).backward()
        results.append({'x': inputs.grad, **{n: p.grad for n, p in model.named_parameters()}})
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_every_trainable_parameter_gets_a_gradient():
    """What DistributedDataParallel needs to run without find_unused_parameters."""
    for model, outputs in (
        (randomize(make(out_indices=(3,))), lambda m, x: m(x)[0]),
        (randomize(make(out_type='logits')), lambda m, x: torch.stack([t.clamp(-9) for t in m(x)])),
    ):
        outputs(model, torch.randn(2, 3, 64, 64)).square().sum().backward()
        missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []


def test_frozen_stages_stay_as_they_are():
    model = make(frozen_stages=2).train()
    assert model.training and not model.stages[1].training and model.stages[2].training
    frozen = {n.rsplit('.', 2)[0] for n, p in model.named_parameters() if not p.requires_grad}
    for name, parameter in model.named_parameters():
        in_frozen_stage = name.startswith(
            ('stages.0.', 'stages.1.', 'downsample_layers.0.', 'downsample_layers.1.')
        )
        feeds_one = name.startswith(('contextualizing.merging.0.', 'contextualizing.embeddings'))
        unlearnt = name.startswith(('contextualizing.classifying', 'contextualizing.logit_scale'))
        assert parameter.requires_grad != (in_frozen_stage or feeds_one or unlearnt), name
    assert frozen


@pytest.mark.parametrize('frozen', [1, 2, 3])
def test_training_leaves_frozen_stages_maps_alone(frozen):
    model = randomize(make(frozen_stages=frozen)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    x = torch.randn(2, 3, 64, 64)
    for _ in range(3):
        optimizer.zero_grad()
        sum(m.square().mean() for m in model(x)).backward()
        optimizer.step()
    # The norms after the stages are not theirs, and go on learning.
    for norm in (model.norm0, model.norm1, model.norm2, model.norm3):
        torch.nn.init.ones_(norm.weight), torch.nn.init.zeros_(norm.bias)
    fresh = randomize(make())
    for norm in (fresh.norm0, fresh.norm1, fresh.norm2, fresh.norm3):
        torch.nn.init.ones_(norm.weight), torch.nn.init.zeros_(norm.bias)
    for i, (trained, untouched) in enumerate(zip(model(x), fresh(x))):
        assert torch.equal(trained, untouched) == (i < frozen)


@pytest.mark.parametrize('batch', [1, 3])
def test_traces(batch):
    model = make(out_type='logits', num_classes=12, considered=(10, 6, 3)).eval()
    x = torch.randn(batch, 3, 64, 64)
    traced = torch.jit.trace(model, x, check_trace=False)
    for got, expected in zip(traced(x + 1), model(x + 1)):
        torch.testing.assert_close(got, expected)


def test_drop_path_and_out_indices_are_the_bases():
    model = make(drop_path_rate=0.4, out_indices=(1, -1))
    assert model.stages[3][0].drop_path.drop_prob == pytest.approx(0.4)
    assert [m.shape[1] for m in model(torch.randn(1, 3, 64, 64))] == [16, 32]
    pooled = make(out_indices=-1, gap_before_final_norm=True)
    assert pooled(torch.randn(2, 3, 64, 64))[0].shape == (2, 32)


@pytest.mark.parametrize('out_type', ['featmap', 'logits'])
def test_layer_decay_has_every_parameter_once(out_type):
    backbone = make(out_type=out_type, frozen_stages=1)
    model = torch.nn.ModuleDict(dict(backbone=backbone, neck=torch.nn.Linear(2, 2)))
    model.backbone = backbone
    wrapper = LayerDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)),
        dict(layer_decay_rate=0.5, flat_decay_mult=0.0),
    )(model)
    grouped = {}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            assert id(parameter) not in grouped
            grouped[id(parameter)] = group
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert grouped.keys() == {id(p) for p in trainable.values()}
    for name, parameter in trainable.items():
        group = grouped[id(parameter)]
        bare = parameter.ndim < 2 or 'embeddings' in name
        assert group['weight_decay'] == (0.0 if bare else 0.05), name
    lr = {n: grouped[id(p)]['lr'] for n, p in trainable.items()}
    inside = 'backbone.stages.2.3.depthwise_conv'
    assert lr[f'{inside}.sampling_offset_predictor.0.weight'] == lr[f'{inside}.weight'] == 0.5**3
    assert lr['neck.weight'] == lr['backbone.contextualizing.embeddings.weight'] == 1.0


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain', 'mmaction'])
def test_any_framework_builds_it_by_name(scope):
    module = pytest.importorskip(f'{scope}.registry')
    init_default_scope(scope)
    model = module.MODELS.build(dict(type='mmctx.ContextualConvNeXt', **SMALL))
    assert isinstance(model, ContextualConvNeXt)


# Table 1 prints 32M, 53M, 93M and 4.6G, 8.9G, 15.8G.
SIZES = {
    ('tiny', 'paper'): (31.55, 4.55),
    ('small', 'paper'): (52.74, 8.83),
    ('base', 'paper'): (92.51, 15.54),
    ('tiny', 'released'): (33.950, 4.70),
    ('small', 'released'): (59.611, 9.15),
    ('base', 'released'): (104.160, 15.98),
}


@pytest.mark.parametrize(('arch', 'preset'), SIZES)
def test_sizes_of_the_published_networks(arch, preset):
    classifier = build_classifier(dict(type='mmctx.ContextualConvNeXt', arch=arch, preset=preset))
    params, flops = SIZES[arch, preset]
    measured = measure_complexity(classifier, (224, 224))
    assert measured.params / 1e6 == pytest.approx(params, abs=6e-3)
    assert measured.flops / 1e9 == pytest.approx(flops, abs=6e-3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(arch='huger'), 'arch'),
        (dict(arch=None), 'arch'),
        (dict(every=1.5), 'every'),
        (dict(out_indices=(0, 7)), 'out_indices'),
        (dict(frozen_stages=9), 'frozen_stages'),
        (dict(arch=dict(depths=[1, 1, 1])), 'four `depths`'),
        (dict(preset='author'), 'preset'),
        (dict(out_type='scores'), 'out_type'),
        (dict(every=0), 'every'),
        (dict(every='last'), 'every'),
        (dict(norm='GN'), 'norm'),
        (dict(offsets=()), 'offsets'),
        (dict(prior='output'), 'prior'),
        (dict(contextual_stages=(2, 3)), 'contextual_stages'),
        (dict(considered=(30, 6, 3)), '30 classes cannot be kept of 20'),
        (dict(considered=10), 'needs 3 whole numbers'),
        (dict(selection='sort'), 'selection'),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_refuses_images_smaller_than_the_stride():
    with pytest.raises(ValueError, match='31×64 pixels are smaller than the stride 32'):
        make()(torch.zeros(1, 3, 31, 64))


def test_smallest_image_in_training():
    model = make(out_type='logits').train()
    logits = model(torch.randn(1, 3, 32, 32))
    assert [int((t > -torch.inf).sum()) for t in logits] == [20, 10, 6, 3]


@pytest.mark.parametrize(
    ('num_classes', 'expected'),
    [(1000, (500, 200, 50)), (200, (100, 40, 10)), (10, (5, 2, 1)), (2, (1, 1, 1)), (1, (1, 1, 1))],
)
def test_considered_numbers_follow_the_number_of_classes(num_classes, expected):
    model = ContextualConvNeXt(NARROW, num_classes=num_classes)
    assert model.contextualizing.considered == expected


def test_a_channels_last_network_stays_so():
    network = make(drop_path_rate=0.0).to(memory_format=torch.channels_last)
    layouts = {}

    def note(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor) and output.dim() == 4:
                is_last = output.is_contiguous(memory_format=torch.channels_last)
                layouts[name] = is_last and not output.is_contiguous()

        return hook

    for name, module in network.named_modules():
        if re.fullmatch(r'(downsample_layers|stages)\.\d(\.\d)?|norm\d', name):
            module.register_forward_hook(note(name))
    images = torch.randn(2, 3, 96, 64).to(memory_format=torch.channels_last)
    got = network(images)
    # Stem and downsampling layers with their parts, blocks, and norms of the results.
    assert len(layouts) == 4 * 3 + 10 + 4 and all(layouts.values()), layouts
    # mmpretrain's norm gives the same.
    plain = make(drop_path_rate=0.0, norm_cfg=dict(type='LN2d', eps=1e-6))
    plain.load_state_dict(network.state_dict())
    assert_same_maps(got, plain(images.contiguous()))
