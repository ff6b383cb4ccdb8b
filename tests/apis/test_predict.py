"""Prediction on files: each kind of network, held to the network itself."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask

from mmctx.apis import Predictor, predict, predicting
from mmctx.apis.predictions import draw, entries_of, in_words
from mmctx.checkpoints.stored_config import stored_config
from mmctx.cli.running import build_model
from mmctx.errors import UserError

ANIMALS = ('ant', 'bee', 'cat', 'dog', 'eel', 'fox')


def test_classifies_as_the_network_does(classifier, pictures):
    results = predict(pictures, classifier / 'epoch_1.pth', device='cpu', top_k=6, batch_size=3)
    assert [r['path'] for r in results] == [
        str(pictures / name) for name in ('a.jpg', 'b.png', 'c.JPEG', 'more/d.jpg')
    ]
    cfg = Config.fromfile(classifier / 'config.py')
    model = build_model(cfg).eval()
    state = torch.load(classifier / 'epoch_1.pth', weights_only=False)['state_dict']
    model.load_state_dict(state)
    image = torch.from_numpy(cv2.imread(str(pictures / 'more' / 'd.jpg'))).permute(2, 0, 1)
    data = model.data_preprocessor(dict(inputs=[image]), False)
    scores = model.head.predict(model.extract_feat(data['inputs']))[0].pred_score
    labels = results[-1]['labels']
    assert [entry['name'] for entry in labels] == [ANIMALS[entry['label']] for entry in labels]
    assert labels[0]['label'] == scores.argmax()
    for entry in labels:
        assert entry['score'] == pytest.approx(scores[entry['label']].item(), abs=1e-4)


def test_batches_workers_and_config_file_change_nothing(classifier, pictures):
    checkpoint, config = classifier / 'epoch_1.pth', classifier / 'config.py'
    first = predict(pictures, checkpoint, device='cpu', batch_size=1)
    second = predict(pictures, checkpoint, config, device='cpu', batch_size=4, num_workers=1)
    assert [r['path'] for r in first] == [r['path'] for r in second]
    for a, b in zip(first, second):
        for left, right in zip(a['labels'], b['labels']):
            assert left['label'] == right['label']
            assert left['score'] == pytest.approx(right['score'], abs=2e-5)


def test_detects(detector, pictures, tmp_path):
    predictor = Predictor(detector / 'epoch_1.pth', device='cpu')
    image, out = str(pictures / 'b.png'), tmp_path / 'drawn' / 'b.jpg'
    (result,) = predictor([image], score_thr=0.0, pictures={image: out})
    assert cv2.imread(str(out)).shape == (64, 96, 3)
    assert 1 <= len(result['objects']) <= 5
    scores = [entry['score'] for entry in result['objects']]
    assert scores == sorted(scores, reverse=True)
    for entry in result['objects']:
        x1, y1, x2, y2 = entry['box']
        assert 0 <= x1 <= x2 <= 96 and 0 <= y1 <= y2 <= 64
        assert entry['mask']['size'] == [64, 96]
        assert entry['name'] == predictor.classes[entry['label']]
    threshold = scores[0] + 0.01
    (result,) = predictor([image], score_thr=threshold)
    assert result['objects'] == []


def test_recognises(recognizer, clip, tmp_path):
    predictor = Predictor(recognizer / 'epoch_1.pth', classes=['run', 'sit', 'wave'], device='cpu')
    out = tmp_path / 'clip.jpg'
    (result,) = predictor([clip], pictures={str(clip): out})
    assert len(result['labels']) == 3
    assert sum(entry['score'] for entry in result['labels']) == pytest.approx(1, abs=1e-3)
    assert {entry['name'] for entry in result['labels']} == {'run', 'sit', 'wave'}
    assert cv2.imread(str(out)) is not None


def test_a_file_that_cannot_be_read_leaves_the_others(classifier, pictures, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'no picture')
    (tmp_path / 'whole.jpg').write_bytes((pictures / 'a.jpg').read_bytes())
    broken, whole = predict(tmp_path, classifier / 'epoch_1.pth', device='cpu')
    assert 'labels' in whole and broken.keys() == {'path', 'error'}


def test_a_narrow_image_costs_neither_the_others_nor_all_memory(
    classifier, detector, pictures, tmp_path
):
    thin, other = str(tmp_path / 'thin.png'), str(pictures / 'b.png')
    cv2.imwrite(thin, np.full((1, 1500, 3), 99, np.uint8))
    results = predict([thin, other], detector / 'epoch_1.pth', device='cpu')
    # Its shorter side would become 0 pixels.
    assert 'resize' in results[0]['error'] and 'objects' in results[1]
    predictor = Predictor(classifier / 'epoch_1.pth', device='cpu')
    (result,) = predictor([thin], pictures={thin: tmp_path / 'drawn.png'})
    assert 'labels' in result
    assert cv2.imread(str(tmp_path / 'drawn.png')).shape == (1, 1500, 3)


def test_a_folder_tells_which_of_its_files_are_passed_over(pictures, tmp_path, monkeypatch):
    for name in ('a.jpg', 'b.webp', 'c.GIF', 'd.tiff'):
        cv2.imwrite(str(tmp_path / f'{name}.png'), np.zeros((8, 8, 3), np.uint8))
        (tmp_path / f'{name}.png').rename(tmp_path / name)
    for name in ('e.heic', 'f.HEIC', 'notes', '._a.jpg'):
        (tmp_path / name).touch()
    logged = []
    monkeypatch.setattr(predicting, 'print_log', lambda text, *_: logged.append(text))
    found = predicting.find_files(tmp_path, 'mmpretrain')
    assert [Path(path).name for path in found] == ['a.jpg', 'b.webp', 'c.GIF', 'd.tiff']
    assert logged == [
        f'{tmp_path} holds files of other endings, which are passed over: 1 without one, 2 .heic'
    ]


def test_segments_of_a_panoptic_detector(tmp_path):
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData

    classes = ('cat', 'dog', 'sky')
    picture = tmp_path / 'a.png'
    cv2.imwrite(str(picture), np.full((8, 10, 3), 99, np.uint8))
    ids = torch.full((1, 8, 10), 2)
    ids[0, :2] = 1 * 1000 + 1
    ids[0, 2:3] = 2 * 1000 + 1
    ids[0, 3:4] = len(classes)
    for map_of_ids, expected in (
        (ids, [('sky', 0.5), ('dog', 0.25), ('dog', 0.125)]),
        (torch.full_like(ids, len(classes)), []),
    ):
        sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=map_of_ids))
        entries = entries_of('mmdet', sample, classes, 0.3, 5)
        assert [(e['name'], e['share']) for e in entries['segments']] == expected
        for entry in entries['segments']:
            mask = coco_mask.decode(entry['mask'])
            assert mask.mean() == entry['share'] and map_of_ids[0][mask == 1].unique().numel() == 1
        drawn = tmp_path / f'{len(expected)}.png'
        draw('mmdet', str(picture), sample, entries, classes, 0.3, drawn)
        assert cv2.imread(str(drawn)).shape == (8, 10, 3)
    words = in_words(dict(path='a', segments=[dict(label=2, name='sky', share=0.5)]))
    assert words == 'a: sky 50%'


def test_what_cannot_be_used(classifier, detector, pictures, tmp_path):
    checkpoint = classifier / 'epoch_1.pth'
    with pytest.raises(UserError, match=r'no_such\.jpg does not exist'):
        predict('no_such.jpg', checkpoint, device='cpu')
    with pytest.raises(UserError, match='holds no files that end in'):
        predict(tmp_path, checkpoint, device='cpu')
    with pytest.raises(UserError, match='of another model'):
        predict(pictures, checkpoint, detector / 'config.py', device='cpu')
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), tmp_path / 'bare.pth')
    with pytest.raises(UserError, match='holds no config: name the config file'):
        predict(pictures, tmp_path / 'bare.pth', device='cpu')


def test_the_stored_config_is_that_of_the_file(classifier, detector):
    for folder in (classifier, detector):
        stored = stored_config(torch.load(folder / 'epoch_1.pth', weights_only=False), 'file')
        expected = Config.fromfile(folder / 'config.py').to_dict()
        differing = {key for key in expected if stored.to_dict().get(key) != expected[key]}
        assert differing <= {'launcher', 'work_dir', 'resume', 'load_from'}


@pytest.mark.parametrize(
    'text',
    ['model = open("x")', 'model = dict(a=__import__("os"))', 'a = b.c', 'x = [', 'a = 1 + b'],
)
def test_a_stored_config_is_never_run(text):
    with pytest.raises(UserError, match='holds more than settings'):
        stored_config(dict(meta=dict(cfg=text)), 'file')


def test_stored_values():
    text = "a = dict(b=[1, -2.5], **{'c.d': (None, True)})\ne = {'f': {1}}\ng = 'x' 'y'\nh = inf"
    cfg = stored_config(dict(meta=dict(cfg=text)), 'file').to_dict()
    assert cfg == dict(
        a={'b': [1, -2.5], 'c.d': (None, True)}, e=dict(f={1}), g='xy', h=float('inf')
    )


def test_command(classifier, pictures, tmp_path, run_command):
    command = ['-m', 'mmctx', 'predict', pictures]
    command += ['--checkpoint', classifier / 'epoch_1.pth', '--device', 'cpu']
    printed = run_command(*command, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    lines = [line for line in printed.stdout.splitlines() if line.startswith(str(pictures))]
    assert len(lines) == 4 and all(line.split(': ')[1].split()[0] in ANIMALS for line in lines)

    written = run_command(*command, '--out', 'out', '--top-k', '2', cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    results = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert [len(result['labels']) for result in results] == [2] * 4
    drawn = sorted(p.relative_to(tmp_path / 'out') for p in (tmp_path / 'out').rglob('*.jpg'))
    assert [str(p) for p in drawn] == [
        f'pictures/{n}.jpg' for n in ('a.jpg', 'b.png', 'c.JPEG', 'more/d.jpg')
    ]
    assert np.std(cv2.imread(str(tmp_path / 'out' / drawn[0]))) > 0
