"""The options of Tables 4 to 6, of both kinds of backbone."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import ConvNeXt, ResNet

from mmctx.errors import UserError
from mmctx.models.backbones import ContextualConvNeXt, ContextualResNet
from mmctx.models.layers import ContextualConv2d, using_prior
from mmctx.models.layers.contextual_conv import PriorInputConv2d

NARROW = dict(stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
CLASSES = dict(num_classes=20, considered=(10, 6, 3), embed_dims=16)
SMALL = dict(**CLASSES, **NARROW)
CONVNEXT = dict(
    arch=dict(depths=[2, 1, 4, 1], channels=[8, 12, 16, 20]),
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
    layer_scale_init_value=1.0,
)
IMAGES = (2, 3, 64, 64)
AS_INPUT = dict(prior='input', linear_pw_conv=False)


def make(**options):
    return ContextualResNet(50, **{**SMALL, **options})


def make_convnext(**options):
    return ContextualConvNeXt(**CLASSES, **{**CONVNEXT, **options})


def contextual_blocks(model):
    types = (ContextualConv2d, PriorInputConv2d)
    return [name for name, layer in model.named_modules() if isinstance(layer, types)]


def test_prior_as_input_is_a_convolution_of_more_channels():
    conv = PriorInputConv2d(6, 4, 1, 2, prior_channels=3)
    torch.nn.init.normal_(conv.prior_weight)
    x, prior = torch.randn(2, 6, 5, 7), torch.randn(2, 3)
    with using_prior(prior):
        got = conv(x)
    wide = torch.cat([x, prior[..., None, None].expand(-1, -1, 5, 7)], 1)
    weight = torch.cat([conv.weight, conv.prior_weight[..., None, None]], 1)
    torch.testing.assert_close(got, F.conv2d(wide, weight, conv.bias, 2))


@pytest.mark.parametrize('options', [dict(prior='input'), dict(prior='none'),
                                     dict(contextual_stages=(4,)),
                                     dict(contextual_stages=(1, 2, 3, 4))])  # fmt: skip
def test_starts_as_the_vanilla_network(options):
    vanilla, model = ResNet(50, **NARROW), make(**options)
    assert not model.load_state_dict(vanilla.state_dict(), strict=False).unexpected_keys
    vanilla.eval(), model.eval()
    x = torch.randn(IMAGES)
    for got, expected in zip(model(x), vanilla(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('options', [AS_INPUT, dict(prior='none'), dict(norm='BN'),
                                     dict(offsets=('sampling',)), dict(offsets=('weight',)),
                                     dict(contextual_stages=(4,)),
                                     dict(contextual_stages=(1, 2, 3, 4))])  # fmt: skip
def test_convnext_starts_as_the_vanilla_network_and_all_of_it_learns(options):
    # With fewer channels Δw's predictor has one hidden feature, of which a norm leaves nothing.
    wider = dict(arch=dict(depths=[2, 1, 4, 1], channels=[64, 64, 96, 64]))
    vanilla, model = ConvNeXt(**{**CONVNEXT, **wider}), make_convnext(**options, **wider)
    assert not model.load_state_dict(vanilla.state_dict(), strict=False).unexpected_keys
    vanilla.eval()
    x = torch.randn(IMAGES)
    for got, expected in zip(model.eval()(x), vanilla(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        if name.endswith('prior_weight') or 'predictor' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    sum(m.square().mean() for m in model.train()(x)).backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())
    assert any(grad.any() for name, grad in trained.items() if 'embeddings' in name) or (
        options.get('prior') == 'none'
    )


@pytest.mark.parametrize(
    ('options', 'blocks'),
    [
        (AS_INPUT, ['1.0.pointwise_conv1', '2.0.pointwise_conv1', '3.0.pointwise_conv1']),
        (dict(contextual_stages=(3, 4)),
         ['2.0.depthwise_conv', '2.3.depthwise_conv', '3.0.depthwise_conv']),
        (dict(every='first', contextual_stages=(1, 2, 3, 4)),
         [f'{stage}.0.depthwise_conv' for stage in range(4)]),
        (dict(every=2, **AS_INPUT), ['1.0.pointwise_conv1', '2.0.pointwise_conv1',
                                     '2.2.pointwise_conv1', '3.0.pointwise_conv1']),
    ],
)  # fmt: skip
def test_which_blocks_of_a_convnext_take_the_prior(options, blocks):
    assert contextual_blocks(make_convnext(**options)) == [f'stages.{name}' for name in blocks]


def test_prior_as_input_of_a_convnext_needs_convolutions():
    with pytest.raises(UserError, match='linear_pw_conv=False'):
        make_convnext(prior='input')


@pytest.mark.parametrize('make_one', [make, make_convnext])
def test_batch_norm_refuses_to_train_on_one_image(make_one):
    with pytest.raises(UserError, match="norm='LN'"):
        make_one(norm='BN').train()(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ('options', 'blocks'),
    [
        (dict(prior='input'), ['layer2.0.conv1', 'layer3.0.conv1', 'layer4.0.conv1']),
        (dict(prior='input', every=3), ['layer2.0.conv1', 'layer2.3.conv1', 'layer3.0.conv1',
                                        'layer3.3.conv1', 'layer4.0.conv1']),
        (dict(every='first'), ['layer2.0.conv2', 'layer3.0.conv2', 'layer4.0.conv2']),
        (dict(contextual_stages=(4,)), ['layer4.0.conv2', 'layer4.2.conv2']),
        (dict(contextual_stages=(1, 2, 3, 4), every=3),
         ['layer1.0.conv2', 'layer2.0.conv2', 'layer2.3.conv2', 'layer3.0.conv2',
          'layer3.3.conv2', 'layer4.0.conv2']),
    ],
)  # fmt: skip
def test_which_blocks_take_the_prior(options, blocks):
    assert contextual_blocks(make(**options)) == blocks


@pytest.mark.parametrize(
    ('stages', 'considered'),
    [((4,), [20, 3]), ((3, 4), [20, 6, 3]), ((1, 2, 3, 4), [20, 10, 6, 3])],
)
def test_stages_before_the_first_prior_do_not_narrow(stages, considered):
    model = make(contextual_stages=stages, out_type='logits')
    logits = model(torch.randn(IMAGES))
    assert [int((row > -torch.inf).sum()) for row, *_ in logits] == considered


def test_the_prior_of_stage_1_is_of_all_classes():
    model = make(contextual_stages=(1, 2, 3, 4))
    prior = model.first_prior(torch.zeros(IMAGES))
    each, joint = model.first_merging.values()
    by_class = torch.stack([each(row) for row in model.contextualizing.embeddings.weight])
    torch.testing.assert_close(prior, joint(by_class.mean(0))[None].expand(2, -1))
    frozen = make(contextual_stages=(1, 2, 3, 4), frozen_stages=1)
    assert not any(p.requires_grad for p in frozen.first_merging.parameters())
    assert all(p.requires_grad for p in frozen.contextualizing.merging.parameters())


def test_without_a_prior_nothing_of_the_classes_is_left():
    model = make(prior='none')
    assert not any('contextualizing' in name for name in model.state_dict())
    assert model.layer2[0].conv2.weight_offset_predictor[0].in_features == 16


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(contextual_stages=(2, 3)), 'contextual_stages'),
        (dict(contextual_stages=()), 'contextual_stages'),
        (dict(prior='output'), 'prior'),
        (dict(prior='none', out_type='logits'), 'featmap'),
        (dict(prior='input', depth=18), '1×1'),
    ],
)
def test_arguments_that_exclude_each_other_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ContextualResNet(**{'depth': 50, **SMALL, **options})
