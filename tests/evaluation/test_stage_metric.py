"""Ranks and figures of each stage against sets of classes taken one by one."""

import subprocess
import sys

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from mmctx.apis import build_classifier, stage_logits
from mmctx.evaluation.stage_metric import StageRecall
from mmctx.models.heads import ContextualClsHead

CONSIDERED = (10, 6, 3)
SMALL = dict(
    type='mmctx.ContextualResNet', depth=18, num_classes=20, considered=CONSIDERED,
    embed_dims=16, stem_channels=8, base_channels=8,
)  # fmt: skip


def labelled(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def figures_of(samples, **options):
    evaluator = Evaluator(StageRecall(**options))
    evaluator.process(data_samples=samples)
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize('selection', ['reduce', 'rerank'])
@pytest.mark.parametrize('contextual_stages', [(2, 3, 4), (3, 4)])
def test_agrees_with_sets_of_classes(selection, contextual_stages):
    model = build_classifier(
        dict(SMALL, selection=selection, contextual_stages=contextual_stages)
    ).eval()
    for parameter in model.backbone.contextualizing.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter)
    inputs, labels = torch.randn(12, 3, 64, 64), torch.randint(0, 20, (12,)).tolist()
    with torch.no_grad():
        stages = stage_logits(model, inputs)
        samples = model.predict(inputs, labelled(labels))
    figures = figures_of(samples, considered=CONSIDERED)
    skipped = 4 - len(stages)
    for stage, logits in enumerate(stages, 1 + skipped):
        right = sum(int(row.argmax()) == label for row, label in zip(logits, labels))
        assert figures.pop(f'stages/top1_stage{stage}') == pytest.approx(100 * right / 12)
        if stage < 4:
            number = CONSIDERED[stage - 1]
            kept = [
                label in row.topk(number).indices.tolist() and row[label] > -torch.inf
                for row, label in zip(logits, labels)
            ]
            got = figures.pop(f'stages/recall@{number}_stage{stage}')
            assert got == pytest.approx(100 * sum(kept) / 12)
    assert figures == {}


def test_a_network_that_tells_nothing_apart_is_right_about_nothing():
    for logits in (torch.zeros(2, 20), torch.full((2, 20), torch.nan)):
        samples = ContextualClsHead().predict((logits,) * 4, labelled([0, 19]))
        figures = figures_of(samples, considered=CONSIDERED)
        assert set(figures.values()) == {0.0}


def test_predicts_without_labels():
    logits = (torch.randn(2, 20),) * 4
    samples = ContextualClsHead().predict(logits)
    assert not any('stage_ranks' in sample for sample in samples)
    assert figures_of(samples) == {}
    assert [int(s.pred_label) for s in samples] == logits[0].argmax(1).tolist()


def test_scores_are_of_the_classes_that_remain():
    logits = torch.randn(2, 20)
    logits[:, 3:] = -torch.inf
    scores = torch.stack([s.pred_score for s in ContextualClsHead().predict((logits,))])
    torch.testing.assert_close(scores[:, :3], logits[:, :3].softmax(1))
    assert not scores[:, 3:].any()


def test_losses_bear_the_numbers_of_their_stages():
    head = ContextualClsHead(dict(type='mmctx.StagewiseCrossEntropy', stage_weights=(0.15, 1.0)))
    losses = head.loss((torch.randn(2, 20),) * 2, labelled([0, 1]))
    assert list(losses) == ['loss_stage3', 'loss_stage4']
    assert losses['loss_stage3'].item() == pytest.approx(0.15 * losses['loss_stage4'].item())


def test_classification_does_without_mmdet():
    code = (
        "import sys; sys.modules['mmdet'] = None; import mmctx; from mmctx import registry as r\n"
        "print(r.METRICS.get('StageRecall'), r.DATASETS.get('TinyImageNet'))\n"
        "print(r.METRICS.get('CocoMetric'))"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "<class 'mmctx.evaluation.stage_metric.StageRecall'> "
        "<class 'mmctx.datasets.tiny_imagenet.TinyImageNet'>",
        'None',
    ]
