import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mmctx.apis.visualize import (
    GAP,
    LARGE,
    contact_sheet,
    decode_mask,
    draw_instances,
    side_by_side,
    write_pictures,
)
from mmctx.datasets.shapes import render_image

CLASSES = ('disk', 'crescent')
PALETTE = ((200, 30, 30), (30, 30, 200))


def box_mask(height, width, x1, y1, x2, y2):
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_decode_mask_reads_every_form_of_segmentation():
    mask = box_mask(21, 33, 4, 5, 14, 12)
    compressed = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    flat = mask.flatten('F').astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    counts = np.diff(edges, prepend=0).tolist()
    plain = {'size': [21, 33], 'counts': [*counts, flat.size - sum(counts)]}
    polygons = [[4, 5, 14, 5, 14, 12, 4, 12]]
    for segmentation in (compressed, plain, polygons):
        assert np.array_equal(decode_mask(segmentation, 21, 33), mask)


@pytest.mark.parametrize('scale', [1, 2, 3])
def test_mask_is_tinted_where_it_lies_and_nothing_else_changes(scale):
    image = np.full((61, 83, 3), 100, np.uint8)
    instance = {'box': (20, 30, 50, 55), 'label': 0, 'mask': box_mask(61, 83, 20, 30, 50, 55)}
    drawn = draw_instances(image, [instance], CLASSES, PALETTE, scale)
    assert drawn.shape == (61 * scale, 83 * scale, 3)
    tint = 0.75 * 100 + 0.25 * np.array(PALETTE[0])
    assert np.allclose(drawn[42 * scale, 35 * scale], tint, atol=1)
    assert (drawn[58 * scale :] == 100).all()
    assert (drawn[:, 70 * scale :] == 100).all()


def test_prediction_without_objects_is_the_enlarged_image():
    image = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    expected = cv2.resize(image, (90, 62), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(draw_instances(image, [], CLASSES, PALETTE, 2), expected)


def test_label_of_an_object_at_the_border_stays_inside_the_picture():
    image = np.full((60, 60, 3), 100, np.uint8)
    mask = box_mask(60, 60, 55, 0, 60, 5)
    instance = {'box': (55, 0, 60, 5), 'label': 1, 'mask': mask, 'score': 0.87}
    drawn = draw_instances(image, [instance], CLASSES, PALETTE, 2)
    label = (drawn == PALETTE[1]).all(-1)
    assert label[:, :60].any()
    assert label.sum() > 400


def test_pages_hold_all_panels():
    panels = [np.full((20, width, 3), value, np.uint8) for width, value in ((30, 10), (41, 90))]
    pair = side_by_side(panels, ['ground truth', 'prediction'])
    below = pair[-20:]
    assert (below[:, :30] == 10).all()
    assert (below[:, -41:] == 90).all()
    sheet = contact_sheet([pair, pair, panels[0]])
    assert sheet.shape[0] > 2 * pair.shape[0]
    assert sheet.shape[1] > 2 * pair.shape[1]
    for row, column in ((0, 0), (0, 1), (1, 0)):
        cell = sheet[row * sheet.shape[0] // 2 :, column * sheet.shape[1] // 2 :]
        assert (cell[:80, :90] == 10).all(-1).sum() >= 20 * 30


class TwoImages:
    """What `write_pictures` uses of a data set."""

    metainfo = {'classes': CLASSES, 'palette': PALETTE}

    def __init__(self, folder):
        self.folder = folder
        for index in range(2):
            cv2.imwrite(str(folder / f'{index}.png'), render_image(index)[0])

    def __len__(self):
        return 2

    def get_data_info(self, index):
        return {'img_id': 10 + index, 'img_path': f'{self.folder}/{index}.png', 'instances': []}


def prediction(image_id, shape, boxes, scores, labels):
    masks = [box_mask(*shape, *box).astype(np.uint8) for box in boxes]
    instances = {
        'bboxes': torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        'scores': torch.tensor(scores),
        'labels': torch.tensor(labels),
        'masks': [coco_mask.encode(np.asfortranarray(mask)) for mask in masks],
    }
    return {'img_id': image_id, 'pred_instances': instances}


def test_pictures_show_the_best_of_what_is_certain(tmp_path):
    dataset = TwoImages(tmp_path)
    shape, other = (render_image(index)[0].shape[:2] for index in range(2))
    boxes = [[10, 40, 40, 70], [11, 41, 41, 71], [60, 60, 90, 90]]
    # Out of order, as are the data set's; the second box names the same object, the third is faint.
    predictions = [
        prediction(11, other, [], [], []),
        prediction(10, shape, boxes, [0.9, 0.6, 0.2], [0, 1, 1]),
    ]
    files = write_pictures(dataset, predictions, tmp_path / 'pictures')
    assert [file.name for file in files] == ['contact_sheet.png', '0.png', '1.png']
    picture = cv2.imread(str(files[1]))[..., ::-1]
    width = picture.shape[1] // 3
    right = picture[:, -width:]
    assert (right == PALETTE[0]).all(-1).any()
    assert not (right == PALETTE[1]).all(-1).any()
    # Nothing is drawn onto the image itself, nor are there true objects to draw.
    untouched, truth = (
        picture[24:, start : start + LARGE].astype(int) for start in (0, LARGE + GAP)
    )
    assert np.array_equal(untouched, truth)
    # All of one size, however large the images are.
    assert {cv2.imread(str(file)).shape for file in files[1:]} == {picture.shape}
    one_predicted = write_pictures(dataset, predictions[:1], tmp_path / 'pictures')
    assert [file.name for file in one_predicted] == ['contact_sheet.png', '1.png']
