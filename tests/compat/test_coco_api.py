"""Labels follow the names of the classes, in data sets and metrics, whatever a file's order."""

import codecs
import itertools
import json

import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

NAMES = ('bolt', 'nut', 'washer')


def write(path, names, mark=b'', encoding='utf-8'):
    ids = {name: 7 * (1 + NAMES.index(name)) for name in NAMES}
    contents = dict(
        images=[dict(id=1, file_name='a.png', width=64, height=64)],
        annotations=[
            dict(id=n, image_id=1, category_id=ids[name], bbox=[n, n, 9, 9], area=81, iscrowd=0)
            for n, name in enumerate(NAMES)
        ],
        categories=[dict(id=ids[name], name=name) for name in names],
    )
    path.write_bytes(mark + json.dumps(contents).encode(encoding))


@pytest.mark.parametrize('order', [*itertools.permutations(NAMES)])
@pytest.mark.parametrize('classes', [NAMES, ('washer', 'bolt')])
def test_a_label_is_the_place_of_its_name_in_classes(tmp_path, order, classes):
    write(tmp_path / 'set.json', order)
    dataset = CocoDataset(
        ann_file=str(tmp_path / 'set.json'),
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    found = [(i['bbox'][0], i['bbox_label']) for i in dataset.get_data_info(0)['instances']]
    assert found == [(n, classes.index(name)) for n, name in enumerate(NAMES) if name in classes]


@pytest.mark.parametrize(
    ('mark', 'encoding'),
    [(codecs.BOM_UTF8, 'utf-8'), (codecs.BOM_UTF16_LE, 'utf-16-le'), (b'', 'utf-8')],
)
def test_a_file_with_a_byte_order_mark_is_read(tmp_path, mark, encoding):
    write(tmp_path / 'set.json', NAMES, mark, encoding)
    coco = COCO(str(tmp_path / 'set.json'))
    assert coco.get_cat_ids(cat_names=['nut']) == [14]
    assert coco.get_cat_ids() == [7, 14, 21]
    assert coco.cat_img_map[7] == [1] and len(coco.img_ann_map[1]) == 3
