"""Pictures of instance segmentation: image, ground truth and prediction, and a sheet of them.

mmdet's own visualizer is made for photographs: on small images its labels are hardly legible, and
it colours an object at random, so that one and the same object differs between the panels.
"""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask
from torchvision.ops import nms

GAP = 8
HEADING = 24
PAPER = (250, 250, 250)
INK = (40, 40, 40)
COUNT = 12
LEAST_SCORE, SAME_OBJECT = 0.5, 0.6
TINT = 0.25
# Sides of the squares that panels fill, in pixels.
LARGE, SMALL = 420, 280


def decode_mask(segmentation, height, width):
    """Turn COCO's polygons or RLE into a mask.

    Args:
        segmentation (list | dict): Polygons, or a compressed or plain RLE.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.

    Returns:
        np.ndarray: Bool mask of shape (height, width).
    """
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        segmentation = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(segmentation).astype(bool)


def enlarged(image, scale):
    """An RGB uint8 image, (H, W, 3), at `scale` times its size."""
    size = tuple(round(side * scale) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def centred(image, side):
    """An RGB uint8 image in the middle of a square of paper, `side` pixels wide."""
    square = Image.new('RGB', (side, side), PAPER)
    height, width = image.shape[:2]
    square.paste(Image.fromarray(image), ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)


def draw_instances(image, instances, classes, palette, scale):
    """Draw tinted masks, thin boxes and labels onto an enlarged copy of the image.

    Args:
        image (np.ndarray): RGB uint8 image of shape (H, W, 3).
        instances (list[dict]): Each with `box` (x1, y1, x2, y2 in pixels), `label` (int), `mask`
            (bool array of shape (H, W)) and, for a prediction, `score`. Later ones are on top.
        classes (Sequence[str]): Name of each label.
        palette (Sequence[tuple]): RGB colour of each label.
        scale (float): Enlargement.

    Returns:
        np.ndarray: RGB uint8 image of shape (H * scale, W * scale, 3), rounded.
    """
    canvas = enlarged(image, scale)
    size = canvas.shape[1::-1]
    for instance in instances:
        colour = np.array(palette[instance['label']], np.float32)
        mask = cv2.resize(instance['mask'].astype(np.float32), size) >= 0.5
        # Light enough for the colours beneath to be recognised.
        canvas[mask] = ((1 - TINT) * canvas[mask] + TINT * colour).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, (255, 255, 255), 3, cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, palette[instance['label']], 1, cv2.LINE_AA)

    picture = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for instance in instances:
        colour = tuple(palette[instance['label']])
        x1, y1, x2, y2 = (float(side) * scale for side in instance['box'])
        pen.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour)
        text = classes[instance['label']]
        if 'score' in instance:
            text += f' {instance["score"]:.2f}'
        width, height = pen.textlength(text, font) + 6, 17
        left = min(max(x1, 0), size[0] - width)
        top = max(y1 - height, 0)
        pen.rectangle((left, top, left + width, top + height - 1), fill=colour)
        bright = np.dot(colour, (0.299, 0.587, 0.114)) > 140
        pen.text((left + 3, top + 1), text, fill=INK if bright else PAPER, font=font)
    return np.asarray(picture)


def side_by_side(panels, headings):
    """Put panels of one height next to each other, each below its heading; RGB uint8."""
    width = sum(panel.shape[1] for panel in panels) + GAP * (len(panels) - 1)
    page = Image.new('RGB', (width, panels[0].shape[0] + HEADING), PAPER)
    pen, font, left = ImageDraw.Draw(page), ImageFont.load_default(14), 0
    for panel, heading in zip(panels, headings):
        pen.text((left + 4, 3), heading, fill=INK, font=font)
        page.paste(Image.fromarray(panel), (left, HEADING))
        left += panel.shape[1] + GAP
    return np.asarray(page)


def contact_sheet(pictures):
    """Lay RGB uint8 pictures of any sizes out in an even grid of two columns."""
    height = max(picture.shape[0] for picture in pictures) + 2 * GAP
    width = max(picture.shape[1] for picture in pictures) + 2 * GAP
    rows = -(-len(pictures) // 2)
    page = Image.new('RGB', (2 * width, rows * height), PAPER)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 2)
        page.paste(Image.fromarray(picture), (column * width + GAP, row * height + GAP))
    return np.asarray(page)


def _panels(image, results, classes, palette, side):
    """The image untouched, and with ground truth and prediction, in squares of one size."""
    scale = side / max(image.shape[:2])
    drawn = [draw_instances(image, each, classes, palette, scale) for each in results]
    panels = [centred(panel, side) for panel in (enlarged(image, scale), *drawn)]
    return side_by_side(panels, ['image', 'ground truth', 'prediction'])


def write_pictures(dataset, predictions, out):
    """Write pictures of the first 12 images that have a prediction, and a contact sheet of them.

    Predictions of scores from 0.5 on are drawn; of those whose boxes overlap by more than 0.6 IoU,
    only the most certain.

    Args:
        dataset (mmdet.datasets.BaseDetDataset): Data set with instance masks.
        predictions (list[dict]): Contents of the file that mmdet's `DumpDetResults` wrote.
        out (str | Path): Folder for `<name of the image>.png` and `contact_sheet.png`.

    Returns:
        list[Path]: The files, the contact sheet first.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
    by_image = {prediction['img_id']: prediction['pred_instances'] for prediction in predictions}
    files, small = [], []
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    predicted = (info for info in infos if info['img_id'] in by_image)
    for info in islice(predicted, COUNT):
        image = cv2.cvtColor(cv2.imread(info['img_path']), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        truth = [
            {
                'box': entry['bbox'],
                'label': entry['bbox_label'],
                'mask': decode_mask(entry['mask'], height, width),
            }
            for entry in info['instances']
        ]
        found = by_image[info['img_id']]
        best = nms(found['bboxes'], found['scores'], SAME_OBJECT).flip(0).tolist()
        order = [i for i in best if found['scores'][i] >= LEAST_SCORE]
        guess = [
            {
                'box': found['bboxes'][i].tolist(),
                'label': int(found['labels'][i]),
                'mask': decode_mask(found['masks'][i], height, width),
                'score': float(found['scores'][i]),
            }
            for i in order
        ]
        large, reduced = (
            _panels(image, [truth, guess], classes, palette, side) for side in (LARGE, SMALL)
        )
        small.append(reduced)
        files.append(out / f'{Path(info["img_path"]).stem}.png')
        Image.fromarray(large).save(files[-1])
    files.insert(0, out / 'contact_sheet.png')
    Image.fromarray(contact_sheet(small)).save(files[0])
    return files
