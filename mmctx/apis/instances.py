"""Pictures of what a model of instance segmentation finds, beside the ground truth."""

from itertools import islice
from pathlib import Path

import mmcv
from pycocotools import mask as coco_mask
from torchvision.ops import nms

from mmctx.visualization.instances import Instance, draw_instances

COUNT = 12
LEAST_SCORE, SAME_OBJECT = 0.5, 0.6


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


def scene_of(info, found):
    """An image of a data set with its objects, and those of a prediction that are certain.

    Args:
        info (dict): Image and objects as mmdet's data sets list them.
        found (dict): `pred_instances` of the prediction.

    Returns:
        tuple[np.ndarray, list[Instance], list[Instance]]: The image, RGB, its objects, and the
        predicted ones of scores from 0.5 on; of those whose boxes overlap by more than 0.6 IoU,
        only the most certain.
    """
    image = mmcv.imread(info['img_path'], channel_order='rgb')
    size = image.shape[:2]
    truth = [
        Instance(entry['bbox_label'], entry['bbox'], decode_mask(entry['mask'], *size))
        for entry in info['instances']
    ]
    best = nms(found['bboxes'], found['scores'], SAME_OBJECT).flip(0).tolist()
    prediction = [
        Instance(
            int(found['labels'][i]),
            found['bboxes'][i].tolist(),
            decode_mask(found['masks'][i], *size),
            float(found['scores'][i]),
        )
        for i in best
        if found['scores'][i] >= LEAST_SCORE
    ]
    return image, truth, prediction


def write_pictures(dataset, predictions, out):
    """Write pictures of the first 12 images that have a prediction, and a contact sheet of them.

    Args:
        dataset (mmdet.datasets.BaseDetDataset): Data set with instance masks.
        predictions (list[dict]): Contents of the file that mmdet's `DumpDetResults` wrote.
        out (str | Path): Folder for `<name of the image>.png` and `contact_sheet.png`.

    Returns:
        list[Path]: The files, the contact sheet first.
    """
    out = Path(out)
    classes, palette = dataset.metainfo['classes'], dataset.metainfo['palette']
    by_image = {prediction['img_id']: prediction['pred_instances'] for prediction in predictions}
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    shown = list(islice((info for info in infos if info['img_id'] in by_image), COUNT))
    scenes = [scene_of(info, by_image[info['img_id']]) for info in shown]
    files = [out / f'{Path(info["img_path"]).stem}.png' for info in shown]
    for scene, file in zip(scenes, files):
        draw_instances([scene], classes, palette, file)
    sheet = out / 'contact_sheet.png'
    draw_instances(scenes, classes, palette, sheet, columns=2)
    return [sheet, *files]
