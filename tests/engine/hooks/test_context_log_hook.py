"""What a training logs of its context, read back from the visualizer's file."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmctx.apis.classifier import build_classifier
from mmctx.engine import ContextLogHook
from mmctx.models.backbones import ContextualConvNeXt
from mmctx.models.context_record import mean_shift, record_context, relative_weight_offset
from mmctx.models.layers import ContextualConv2d, using_prior


class Noise(Dataset):
    """Six images of six classes."""

    def __init__(self):
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(6, 3, 64, 64, generator=generator) * 255
        self.samples = [DataSample().set_gt_label(i) for i in range(6)]

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=self.samples[index])


def run(tmp_path, model, interval):
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            batch_size=6,
            dataset=Noise(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[dict(type='mmctx.ContextLogHook', interval=interval)],
        default_hooks=dict(checkpoint=None),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        default_scope='mmpretrain',
        experiment_name=tmp_path.name,
        log_level='ERROR',
    )
    runner.train()
    (file,) = tmp_path.rglob('scalars.json')
    lines = map(json.loads, file.read_text().splitlines())
    return [line for line in lines if any(name.startswith('context/') for name in line)]


def test_scalars_are_those_of_the_network_every_few_iterations(tmp_path):
    model = build_classifier(
        dict(
            type='mmctx.ContextualResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            num_classes=6,
            considered=(4, 3, 2),
            embed_dims=8,
        )
    )
    for module in model.modules():
        predictors = (
            getattr(module, f'{name}_offset_predictor', None) for name in ('sampling', 'weight')
        )
        for predictor in filter(None, predictors):
            nn.init.normal_(predictor[-1].weight, std=0.1)
    # The runner would make them zero again.
    model._is_init = True
    logged = run(tmp_path, model, interval=2)
    assert [line['step'] for line in logged] == [2, 4]
    # The rate is zero, and norms in training use the batch alone.
    data = Noise()
    batch = model.data_preprocessor(
        dict(inputs=list(data.images), data_samples=data.samples), training=True
    )
    with record_context(model) as record:
        losses = model(**batch, mode='loss')
    expected = {f'context/{name}': loss.item() for name, loss in losses.items()}
    expected['context/temperature'] = 0.07
    for stage in (1, 2, 3):
        kept = record.stages[stage].kept.diagonal()
        expected[f'context/recall_stage{stage}'] = 100 * kept.float().mean().item()
    for name, seen in record.convolutions.items():
        weight = model.get_submodule(name).weight
        expected[f'context/shift/{name}'] = mean_shift(seen.sampling_offset).item()
        expected[f'context/kernel_change/{name}'] = relative_weight_offset(
            seen.weight_offset, weight
        ).item()
    got = dict(logged[-1])
    got.pop('step')
    assert got == pytest.approx(expected, rel=1e-4)
    assert any(name.startswith('context/shift/backbone.layer4') for name in got)
    assert all(value > 0 for name, value in got.items() if 'shift' in name or 'kernel' in name)


def logged_by_one_iteration(model, images):
    logged = {}
    visualizer = SimpleNamespace(add_scalars=lambda values, step: logged.update(values, step=step))
    runner = SimpleNamespace(model=model, iter=0, visualizer=visualizer)
    hook = ContextLogHook(interval=1)
    hook.before_train_iter(runner, 0)
    model(images)
    hook.after_train_iter(runner, 0, outputs={'loss_rpn': torch.tensor(1.0)})
    return logged


def test_a_network_without_stage_losses_logs_what_it_has():
    arch = dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    model = ContextualConvNeXt(arch=arch, num_classes=6, considered=(4, 3, 2))
    logged = logged_by_one_iteration(model, torch.randn(1, 3, 32, 32))
    convs = [f'stages.{i}.0.depthwise_conv' for i in (1, 2, 3)]
    names = [f'context/{figure}/{name}' for name in convs for figure in ('shift', 'kernel_change')]
    assert sorted(logged) == sorted(['context/temperature', *names, 'step'])
    assert all(logged[name] == 0 for name in names)


def test_a_compiled_network_is_logged_too():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ContextualConv2d(2, 2, 1, prior_channels=1, offsets=('weight',))

        def forward(self, x):
            with using_prior(x.new_ones(1, 1)):
                return self.conv(x)

    model, x = Layer(), torch.ones(1, 2, 2, 2)
    model.forward = torch.compile(model.forward, backend='eager')
    model(x)
    assert 'context/kernel_change/conv' in logged_by_one_iteration(model, x)


def test_refuses_an_interval_of_nothing():
    with pytest.raises(ValueError, match='interval should be'):
        ContextLogHook(interval=0)
