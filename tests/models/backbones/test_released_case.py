"""A case recorded from the authors' released code: logits, scores, losses and gradients."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mmctx.apis import build_classifier, stage_logits
from mmctx.weights import convert_released

CASE = Path(__file__).parents[2] / 'data' / 'released_ctx_convnext.npz'


@pytest.fixture(scope='module')
def case():
    with np.load(CASE) as arrays:
        return {key: arrays[key] for key in arrays.files}


def part(case, prefix):
    return {k[len(prefix) :]: torch.from_numpy(v) for k, v in case.items() if k.startswith(prefix)}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def run(request, case):
    meta = json.loads(str(case['meta']))
    classifier = build_classifier(
        dict(
            type='mmctx.ContextualConvNeXt',
            arch=dict(depths=meta['depths'], channels=meta['dims']),
            preset='released',
            num_classes=meta['num_classes'],
            considered=meta['ctx_ks'][:3],
            embed_dims=meta['class_emb_dim'],
            selection='rerank',
            every=meta['dyn_block_freq'],
        )
    )
    classifier.load_state_dict(convert_released(part(case, 'state/')))
    classifier.eval().to(request.param)
    logits = stage_logits(classifier, torch.from_numpy(case['input']).to(request.param))
    samples = [DataSample().set_gt_label(int(label)) for label in case['target']]
    return classifier, logits, classifier.head.loss(logits, samples)


def test_logits_and_scores_are_the_recorded_ones(case, run):
    _, logits, _ = run
    ranked = logits[0]
    for i, own in enumerate(logits):
        if i:
            # The recorded columns are in the order of the scores of the stage before.
            ranked = own.gather(1, logits[i - 1].argsort(1, descending=True))
        expected = torch.from_numpy(case[f'eval_logits_stage{i + 1}'])
        torch.testing.assert_close(ranked.float(), expected, rtol=1e-4, atol=1e-5)
    expected = torch.from_numpy(case['eval_class_scores'])
    torch.testing.assert_close(logits[-1].float(), expected, rtol=1e-4, atol=1e-5)


def test_losses_are_the_recorded_ones(case, run):
    _, _, losses = run
    weights = torch.tensor([0.15, 0.15, 0.15, 1.0])
    # The released code adds 1e-6 before weighting.
    got = torch.stack(list(losses.values())).float() + 1e-6 * weights
    torch.testing.assert_close(got, torch.from_numpy(case['eval_stage_losses']), rtol=1e-4, atol=0)
    assert got.sum().item() == pytest.approx(float(case['eval_loss']), rel=1e-4)


def test_every_gradient(case, run):
    classifier, _, losses = run
    sum(losses.values()).backward()
    expected = convert_released(part(case, 'grad/'))
    got = {name: parameter.grad for name, parameter in classifier.named_parameters()}
    assert got.keys() == expected.keys()
    # Norms over 3 features magnify float32's rounding, in the record and here; hence the slack.
    double = next(classifier.parameters()).dtype == torch.float64
    tolerance = 1e-4 if double else 3e-4
    for name, value in expected.items():
        error = (got[name] - value).norm() / value.norm()
        assert error < tolerance, f'{name}: {error:.1e}'
