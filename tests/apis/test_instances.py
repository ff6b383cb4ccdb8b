import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask

from mmctx.apis.instances import decode_mask, write_pictures
from mmctx.datasets.shapes import render_image
from mmctx.visualization.instances import Instance, draw_instances

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


def panels(path):
    """The three panels of a scene, side by side in a picture, below their headings."""
    picture = cv2.imread(str(path))[50:, :, ::-1]
    return np.split(picture[:, : picture.shape[1] // 3 * 3], 3, axis=1)


def share(panel, colour):
    return (np.abs(panel.astype(int) - colour).max(-1) <= 2).mean()


def test_each_panel_shows_its_own_objects(tmp_path):
    image = np.full((60, 80, 3), 100, np.uint8)
    true = Instance(0, (20, 20, 60, 50), box_mask(60, 80, 20, 20, 60, 50))
    found = Instance(1, (70, 0, 80, 10), box_mask(60, 80, 70, 0, 80, 10), 0.87)
    draw_instances([(image, [true], [found])], CLASSES, PALETTE, tmp_path / 'scene.png')
    untouched, truth, prediction = panels(tmp_path / 'scene.png')
    tints = [0.75 * 100 + 0.25 * np.array(colour) for colour in PALETTE]
    assert share(untouched, 100) > 0.5
    assert share(truth, tints[0]) > 0.1
    assert share(prediction, PALETTE[1]) > 0.01  # the ground of the label
    for panel in (untouched, prediction):
        assert share(panel, tints[0]) == share(panel, PALETTE[0]) == 0
    for panel in (untouched, truth):
        assert share(panel, tints[1]) == share(panel, PALETTE[1]) == 0


def test_an_empty_mask_is_drawn_without_an_outline(tmp_path):
    image = np.full((60, 80, 3), 100, np.uint8)
    found = Instance(0, (20, 20, 60, 50), np.zeros((60, 80), bool), 0.5)
    draw_instances([(image, [], [found])], CLASSES, PALETTE, tmp_path / 'scene.png')
    assert share(panels(tmp_path / 'scene.png')[2], PALETTE[0]) > 0


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
    untouched, truth, shown = panels(files[1])
    assert share(shown, PALETTE[0]) > 0
    assert share(shown, PALETTE[1]) == 0
    # Nothing is drawn onto the image itself, nor are there true objects to draw.
    assert np.abs(untouched.astype(int) - truth).mean() < 1
    # All of one size, however large the images are.
    single, sheet = cv2.imread(str(files[1])).shape, cv2.imread(str(files[0])).shape
    assert {cv2.imread(str(file)).shape for file in files[1:]} == {single}
    assert sheet == (single[0], 2 * single[1], 3)
    one_predicted = write_pictures(dataset, predictions[:1], tmp_path / 'pictures')
    assert [file.name for file in one_predicted] == ['contact_sheet.png', '1.png']
