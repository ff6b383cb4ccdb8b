"""The study from vanilla weights: its data, its steps against mmengine's, and its records."""

import re
from copy import deepcopy
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample

from benchmarks.study.from_vanilla import session
from benchmarks.study.from_vanilla.ceiling import Known, ceilings, fit_probe
from benchmarks.study.from_vanilla.controls import TrueClassKept, priors_of_another_image, tell
from benchmarks.study.from_vanilla.draws import (
    crop,
    cut_mix,
    draw_boxes,
    draw_crops,
    draw_order,
    draw_schedule,
    normalize,
)
from benchmarks.study.from_vanilla.evaluation import answers, evaluate, examine
from benchmarks.study.from_vanilla.images import Images, read_packed, write_packed
from benchmarks.study.from_vanilla.main import main
from benchmarks.study.from_vanilla.networks import (
    DECAY,
    build_network,
    build_optimizer,
    considered,
    embeddings_from,
    forward,
    start_from,
)
from benchmarks.study.from_vanilla.records import bits, load, sampling_error
from benchmarks.study.from_vanilla.rows import BASES, RATES, ROWS
from benchmarks.study.from_vanilla.session import Recipe
from benchmarks.study.from_vanilla.trainer import Trainer

CPU = torch.device('cpu')
CLASSES = 20
BY_KEY = {row.key: row for row in (*BASES.values(), *ROWS)}


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    """Twenty classes of a colour each, four training images and two for validation."""
    root = tmp_path_factory.mktemp('tiny')
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        with ZipFile(root / f'{split}.zip', 'w') as archive:
            for label in range(CLASSES):
                for i in range(count):
                    image = np.full((64, 64, 3), label * 12, np.uint8)
                    image[:32] = rng.integers(0, 255, 3)
                    name = f'{split}/n{label:08d}/{i}.jpg'
                    archive.writestr(name, cv2.imencode('.jpg', image)[1].tobytes())
    file = root / 'packed.zip'
    write_packed(str(root), str(root / 'cache'), file, CLASSES, 90)
    return file


@pytest.fixture(scope='module')
def images(packed):
    return read_packed(packed, CPU)


def network_of(key):
    return build_network(BY_KEY[key], CLASSES, 8, 32)


def test_packed_images_are_those_that_were_packed(packed, images):
    assert [len(images[split].labels) for split in ('train', 'val')] == [80, 40]
    assert images['train'].labels.argmax(1).tolist() == [i // 4 for i in range(80)]
    original = torch.from_numpy(np.load(next((packed.parent / 'cache').glob('train*.npy'))))
    error = (images['train'].pixels.float() - original.float()).abs().mean()
    assert error < 3


def test_refuses_files_of_others(tmp_path):
    with pytest.raises(ValueError, match='is not there'):
        read_packed(tmp_path / 'none.zip', CPU)
    with ZipFile(tmp_path / 'other.zip', 'w') as archive:
        archive.writestr('a', 'b')
    with pytest.raises(ValueError, match='not written by'):
        read_packed(tmp_path / 'other.zip', CPU)


def test_order_is_passes_over_all_images():
    order = draw_order(10, 4, 5, np.random.default_rng(0)).flatten()
    assert sorted(order[:10].tolist()) == sorted(order[10:].tolist()) == list(range(10))


def test_crops_are_inside_and_half_are_mirrored():
    maps = draw_crops(200, 5, np.random.default_rng(0))
    corners = torch.tensor([[-1.0, -1, 1], [1, 1, 1]]).t()
    assert (maps @ corners).abs().max() <= 1 + 1e-5
    area = (maps[..., 0, 0] * maps[..., 1, 1]).abs()
    assert 0.3 < area.min() < 0.4 and area.max() > 0.9
    assert 0.45 < (maps[..., 0, 0] < 0).float().mean() < 0.55


def test_crop_shows_the_part_that_its_map_names():
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pixels[..., :32, 32:] = 200
    upper_right = torch.tensor([[[0.5, 0, 0.5], [0, 0.5, -0.5]]])
    assert crop(pixels, upper_right)[..., 1:-1, 1:-1].min() > 199.9
    whole_mirrored = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    assert crop(pixels, whole_mirrored)[0, 0, 5, 5] > 199.9


def test_parameters_wait_in_the_schedule():
    schedule = draw_schedule(100, 0.1, 0.3)
    assert (schedule[:30, 1] == 0).all() and (schedule[31:-1] > 0).all()
    assert torch.equal(schedule[45:, 0], schedule[45:, 1])
    assert schedule[:, 0].argmax() == 9 and schedule[-1, 0] < 1e-6


@pytest.mark.parametrize('key', ['a1', 'a3', 'scores', 'reduce'])
def test_steps_are_those_of_mmengine(key, images):
    """The loop of this study against the model's own `train_step`, weight for weight."""
    row, steps, batch, lr = BY_KEY[key], 3, 8, 1e-3
    theirs = network_of(key).double()
    ours = deepcopy(theirs)
    train = Images(images['train'].pixels, images['train'].labels.double())
    rng = np.random.default_rng(0)
    order, crops = draw_order(80, batch, steps, rng), draw_crops(batch, steps, rng)
    boxes = torch.zeros(steps, 4)
    optimizer = build_optimizer(ours, lr, row.rates)
    trainer = Trainer(ours.train(), optimizer, train, order, crops, boxes)

    def in_double(module, inputs):
        return (inputs[0].double(),)

    ours.backbone.register_forward_pre_hook(in_double)
    trainer.run(steps)

    no_decay = {f'contextualizing.{n}': dict(decay_mult=0.0) for n in ('embeddings', 'logit_scale')}
    wrapper = build_optim_wrapper(
        theirs,
        dict(
            optimizer=dict(type='AdamW', lr=lr, weight_decay=DECAY),
            constructor='mmctx.ContextualOptimWrapperConstructor',
            paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0,
                               custom_keys=no_decay, **RATES),
        ),
    )  # fmt: skip
    rates = [group['lr'] for group in wrapper.param_groups]
    theirs.train()
    for chosen, maps, (factor, _) in zip(order, crops, draw_schedule(steps, 0.08, 0.0)):
        for group, rate in zip(wrapper.param_groups, rates):
            group['lr'] = rate * factor.item()
        inputs = normalize(crop(train.pixels[chosen], maps)).double()
        samples = [DataSample().set_gt_label(int(train.labels[i].argmax())) for i in chosen]
        with wrapper.optim_context(theirs):
            losses = theirs(inputs, samples, mode='loss')
        wrapper.update_params(theirs.parse_losses(losses)[0])
    for (name, got), want in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(
            got, want, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f'{n}: {m}'
        )
    loss, right = trainer.take_sums()
    assert 0.5 < loss / np.log(CLASSES) < 4 and 0 <= right <= 100


def test_steps_before_a_capture_are_forgotten(images):
    network = network_of('a1').train()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    draws = draw_order(80, 8, 2, rng), draw_crops(8, 2, rng), draw_boxes(2, 0.5, rng)
    trainer = Trainer(network, build_optimizer(network, 1e-3, None), images['train'], *draws)
    trainer.run(2)
    first = {name: value.clone() for name, value in network.state_dict().items()}
    trainer._restart(start)
    trainer.run(2)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, first[name])


def test_boxes_of_cutmix_take_half_of_the_image_on_average():
    boxes = draw_boxes(4000, 0.25, np.random.default_rng(0))
    x0, x1, y0, y1 = boxes.t()
    area = (x1 - x0) * (y1 - y0)
    assert 0.22 < (area > 0).float().mean() < 0.28
    assert boxes.min() >= 0 and boxes.max() <= 1 and area.max() > 0.9
    # Half of it, and then what lies inside of a box whose middle lies anywhere.
    assert 0.25 < area[area > 0].mean() < 0.4


def test_cutmix_pastes_the_box_and_shares_the_label():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 4)
    target = torch.eye(4)
    mixed, labels = cut_mix(images, target, torch.tensor([0.5, 1, 0, 0.25]))
    assert (mixed[0, :, :2, 2:] == 2).all() and mixed[0].sum() == 2 * 3 * 2 * 2
    assert labels[3].tolist() == [0, 0.125, 0, 0.875]
    mixed, labels = cut_mix(images, target, torch.zeros(4))
    assert torch.equal(mixed, images) and torch.equal(labels, target)


def test_kept_classes_are_the_packages_own_proportions():
    assert considered(110) == [55, 22, 5]
    assert considered(110, 3) == [18, 7, 1]


def last_block(network):
    backbone = network.backbone
    return backbone.layer4[-1] if hasattr(backbone, 'layer4') else backbone.stages[3][-1]


STARTS = {repr((row.backbone, row.family, row.fewer, row.from_classifier)): row for row in ROWS}


@pytest.mark.parametrize('row', STARTS.values(), ids=lambda row: row.key)
def test_rows_start_as_the_vanilla_network(row, images):
    """Features of the last stage but the modulated row's are those of the vanilla one."""
    torch.manual_seed(1)
    vanilla, other = network_of(row.vanilla).eval(), network_of(row.key).eval()
    start_from(other, row, vanilla.state_dict())
    pixels = normalize(images['val'].pixels[:4])
    tell(other, images['val'].labels[:4])
    last = []
    for network in (vanilla, other):
        last_block(network).register_forward_hook(lambda m, a, out: last.append(out))
        forward(network, pixels)
    vanilla_map, own_map = last
    if row.key != 'a4':
        torch.testing.assert_close(own_map, vanilla_map, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused():
    state = network_of('a1').state_dict()
    del state['backbone.conv1.weight']
    with pytest.raises(RuntimeError, match=r'backbone\.conv1\.weight'):
        start_from(network_of('a5'), BY_KEY['a5'], state)


def test_embeddings_of_a_classifier_keep_its_angles():
    weights, embeddings = torch.randn(20, 256), torch.randn(20, 32)
    found = embeddings_from(weights, embeddings)
    got, want = (F.normalize(v.double(), dim=1) for v in (found, weights))
    torch.testing.assert_close(got @ got.t(), want @ want.t(), rtol=1e-5, atol=1e-5)
    assert found.norm(dim=1).mean() == pytest.approx(0.02 * 32**0.5)


def test_the_true_class_is_kept_in_the_place_of_the_last():
    layer = TrueClassKept([4] * 4, [4] * 3, num_classes=9, considered=(5, 3, 2))
    logits = torch.randn(40, 9)
    layer.target = F.one_hot(torch.arange(40) % 9, 9).float()
    top = layer.keep(logits, 1)
    plain = logits.topk(3).indices
    for label, got, want in zip(torch.arange(40) % 9, top.tolist(), plain.tolist()):
        assert len(set(got)) == 3 and label in got
        assert got == (want if label in want else [*want[:2], int(label)])


def test_priors_of_another_image_are_those_of_the_one_before():
    network = network_of('scores').eval()
    priors = []
    for merging in network.backbone.contextualizing.merging:
        merging['joint'].register_forward_hook(lambda m, a, out: priors.append(out))
    used = []
    for block in (network.backbone.layer2[0], network.backbone.layer3[0]):
        block.conv2.register_forward_pre_hook(lambda m, a: used.append(m.current_prior()))
    with priors_of_another_image(network):
        forward(network, torch.randn(3, 3, 64, 64))
    assert torch.equal(used[0], priors[0].roll(1, 0)) and not torch.equal(used[0], priors[0])
    used.clear()
    forward(network, torch.randn(3, 3, 64, 64))
    assert torch.equal(used[1], priors[4])


def test_swapped_priors_are_of_other_classes(images):
    """Validation images come class by class, and a neighbour's prior would tell the class."""
    network = network_of('true-alone')
    told = []
    merging = network.backbone.contextualizing.merging[0]
    merging.register_forward_pre_hook(lambda m, args: told.append(args[1][:, 0]))
    evaluate(network, images['val'])
    labels = torch.cat(told)
    assert len(labels) == 40 and (labels == labels.roll(1)).float().mean() < 0.2


def test_answers_are_in_the_order_of_the_images(images):
    vanilla = network_of('a1')
    vanilla.head.fc.weight.data.zero_()
    vanilla.head.fc.bias.data[3] = 1
    right = answers(vanilla, images['val'])['top1']
    assert torch.equal(right, images['val'].labels.argmax(1) == 3)
    assert evaluate(vanilla, images['val'])['top1'] == pytest.approx(100 / CLASSES)


def test_error_of_a_difference_is_that_of_the_images():
    rng = np.random.default_rng(0)
    shared, own = rng.uniform(size=900) < 0.5, rng.uniform(size=(2, 900)) < 0.1
    rows = [
        {seed: dict(recipe=dict(data=['', 0, 900]), right=bits(torch.from_numpy(shared ^ flipped)))
         for seed in (0, 1)}
        for flipped in own
    ]  # fmt: skip
    gains = (shared ^ own[0]).astype(float) - (shared ^ own[1])
    assert sampling_error(*rows) == pytest.approx(100 * gains.std(ddof=1) / 30)


def test_figures_of_a_network_that_is_always_right(images):
    network = network_of('true-alone')
    found = evaluate(network, images['val'])
    assert {found[f'recall_stage{i}'] for i in (1, 2, 3)} == {100.0}
    assert network.training


def test_examination_sees_what_predictors_do(images):
    assert examine(network_of('a1'), images['val']) == {}
    network = network_of('a5')
    found = examine(network, images['val'])
    assert found['offset_px'] == found['delta_share'] == 0
    for stage in (2, 3, 4):
        conv = getattr(network.backbone, f'layer{stage}')[0].conv2
        conv.sampling_offset_predictor[-1].bias.data.fill_(0.5)
    found = examine(network, images['val'])
    # One of the two, three and two contextual blocks of each stage.
    assert found['offset_px'] == pytest.approx(0.5 * 3 / 7)
    assert all(0 < found[f'prior_spread_stage{i}'] < 1 for i in (2, 3, 4))


def test_ceilings_of_stages_that_know_more_or_nothing():
    """Twenty classes; the network is right in half of the images, else takes the class after."""
    labels = torch.arange(400) % 20
    wrong = torch.arange(400) % 8 >= 4
    logits = F.one_hot((labels + wrong) % 20, 20) + 0.51 * F.one_hot(labels, 20)
    knows, blind = F.one_hot(labels, 20).float(), torch.zeros(400, 20)
    blind[:, :10] = torch.linspace(2, 1, 10)
    val = Known([knows, blind, blind], logits, labels)
    found = ceilings(val, [torch.nn.Identity()] * 3)
    assert found['alone'] == 50 and found['recall_stage1'] == 100
    assert found['recall_stage2'] == 20 and found['recall_stage3'] == 5
    assert found['recall_wrong_stage1'] == found['recall_right_stage1'] == 100
    # Added in full, what the first stage knows decides; a blind one tells nothing.
    assert found['scores_stage1'] == 50 and found['scores_stage1_error'] == pytest.approx(2.5, 0.01)
    assert found['scores_stage3'] == 0
    # One class is kept after stage 3: the true one, or class 0.
    assert found['true_stage3'] == 50 and found['kept_stage3'] == -45


def test_a_probe_learns_what_features_tell():
    features = torch.randn(2000, 5)
    labels = features[:, 1:4].argmax(1)
    probe = fit_probe(features, labels, 3)
    assert (probe(features).argmax(1) == labels).float().mean() > 0.8


def test_ceilings_are_measured_of_kept_weights(packed, tmp_path, capsys):
    weights = tmp_path / 'a.pth'
    torch.save({k: v.half() for k, v in network_of('a1').state_dict().items()}, weights)
    main(['ceiling', str(packed), str(weights), '--width', '8', '--every', '2'])
    assert re.search(r'^alone +\d+\.\d$', capsys.readouterr().out, re.M)


OPTIONS = ['--seeds', '2', '--width', '8', '--embed-dims', '32', '--batch', '16',
           '--base-passes', '0.4', '--passes', '0.4']  # fmt: skip


def test_a_call_resumes_after_the_last_row(packed, tmp_path, capsys):
    """It ends in time, trains one vanilla network once, and two rows side by side."""
    call = ['train', str(packed), '--out', str(tmp_path), *OPTIONS, '--rows', 'a1', 'a5']
    with pytest.raises(SystemExit, match='3'):
        main([*call, '--minutes', '0.0001'])
    (weights,) = (tmp_path / 'weights').iterdir()
    written = weights.stat().st_mtime_ns
    with (tmp_path / 'from_vanilla.jsonl').open('a') as file:
        file.write('{"half a line\n')
    main(call)
    assert weights.stat().st_mtime_ns == written
    assert 'a5 ' in capsys.readouterr().out.split('row ')[1]
    main(call)
    assert 'steps of' not in capsys.readouterr().out
    table = (tmp_path / 'from_vanilla.md').read_text()
    assert '| a5 | +Ctx +CtxConv' in table and '| base |' in table
    recipe = Recipe(8, 32, 16, base_passes=0.4, passes=0.4)._asdict()
    records = load(tmp_path, dict(recipe, data=['packed.zip', 80, 40]))
    assert [(r['row'], r['seed'], r['side_by_side']) for r in records] == [
        ('base', 0, 1), ('a1', 0, 4), ('a1', 1, 4), ('a5', 0, 4), ('a5', 1, 4)
    ]  # fmt: skip


def test_a_row_that_fails_costs_no_other(packed, tmp_path, capsys, monkeypatch):
    good = session.Session._trainer

    def trainer(self, row, seed, steps):
        if row.key == 'a3':
            raise RuntimeError('no such kernel')
        return good(self, row, seed, steps)

    monkeypatch.setattr(session.Session, '_trainer', trainer)
    rows = ['--seeds', '1', '--rows', 'a3', 'a1']
    with pytest.raises(SystemExit, match='3'):
        main(['train', str(packed), '--out', str(tmp_path), *OPTIONS, *rows])
    shown = capsys.readouterr()
    assert (
        shown.err.count('RuntimeError: no such kernel') == 2 and 'a1 ' in shown.out.split('row ')[0]
    )


def test_refuses_rows_that_are_not_there(packed, tmp_path):
    with pytest.raises(ValueError, match='no row a9'):
        main(['train', str(packed), '--out', str(tmp_path), '--rows', 'a9'])
