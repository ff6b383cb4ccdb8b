"""The paper's tables as printed, read from the metafiles beside the configs of their rows."""

from pathlib import Path
from typing import NamedTuple

import yaml

from mmctx.errors import UserError


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        key (str): Short name, unique within the table.
        model (str): Name of the model in the paper.
        config (str): Path of the config file beneath mmctx's configs, without `.py`.
        params (str): Printed #param.; '' where the paper gives none.
        flops (str): Printed FLOPs, which are multiply-adds.
        accuracy (tuple[str, ...]): Printed accuracies in the order of the table's columns; several
            in one column are separated by a slash.
        speed (str): Printed img/s on a V100. Defaults to '', not given.
        vanilla (str): Key of the row with which the speed is compared. Defaults to '', none.
        same_as (str): Another config that trains the same network. Defaults to '', none.
    """

    key: str
    model: str
    config: str
    params: str
    flops: str
    accuracy: tuple[str, ...]
    speed: str = ''
    vanilla: str = ''
    same_as: str = ''


class Table(NamedTuple):
    """A table of the paper.

    Attributes:
        title (str): Subject of the table.
        metrics (dict[str, dict[str, str]]): For each heading, the names of its metrics in
            mmengine's log and, as values, in the metafiles.
        rows (tuple[Row, ...]): Rows of the table. Defaults to none.
        truncated (bool): Whether the paper truncates #param. and FLOPs, as it does for ResNet50,
            instead of rounding them. Defaults to False.
        shape (tuple[int, int]): Height and width of the image for which FLOPs are counted.
        frames (int): Number of frames of that size in a clip, for videos. Defaults to 1.
        percent (int): Factor from the logged metrics to the printed ones. Defaults to 1.
        note (str): Note for readers. Defaults to ''.
    """

    title: str
    metrics: dict[str, dict[str, str]]
    rows: tuple[Row, ...] = ()
    truncated: bool = False
    shape: tuple[int, int] = (224, 224)
    frames: int = 1
    percent: int = 1
    note: str = ''


_TOP1 = {'top-1': {'accuracy/top1': 'Top 1 Accuracy'}}
_TOP1_AND_5 = {'top-1/top-5': {'acc/top1': 'Top 1 Accuracy', 'acc/top5': 'Top 5 Accuracy'}}
_AP = {
    f'{kind} AP/50/75': {
        f'coco/{log}_mAP': f'{kind} AP',
        f'coco/{log}_mAP_50': f'{kind} AP@0.5',
        f'coco/{log}_mAP_75': f'{kind} AP@0.75',
    }
    for kind, log in (('box', 'bbox'), ('mask', 'segm'))
}
# The rows are in the metafiles.
_TABLES = {
    1: Table('ImageNet-1K, 224×224, single crop', _TOP1),
    2: Table(
        'Kinetics-400, TSM, 16 frames, 224×224',
        _TOP1_AND_5,
        truncated=True,
        frames=16,
        percent=100,
        note='The contextual row is above the vanilla one by what it is in Tables 4–6 here: 0.1G, '
        'not 0.2G, a frame.',
    ),
    3: Table('COCO val2017, Mask R-CNN, 1280×800', _AP, shape=(800, 1280), percent=100),
    4: Table('ImageNet-1K, ResNet50: contexts and convolutions', _TOP1, truncated=True),
    5: Table(
        'ImageNet-1K, ResNet50: offsets',
        _TOP1,
        truncated=True,
        note='The paper gives b1 the size of plain ResNet50 but not its top-1, which is 76.58 in '
        'a1 and c1; b1 is plain ResNet50 here.',
    ),
    6: Table(
        'ImageNet-1K, ResNet50: contextual stages, width d of the class embeddings',
        _TOP1,
        truncated=True,
    ),
}


def read_models(root: Path) -> list[dict]:
    """Read the models of all metafiles that `model-index.yml` names.

    Args:
        root (Path): Folder of `model-index.yml`.

    Returns:
        list[dict]: Entries of `Models`, with numbers as strings, so that 78.30 keeps its zero.
    """

    def read(name):
        return yaml.load((root / name).read_text(encoding='utf-8'), yaml.BaseLoader)

    return [model for name in read('model-index.yml')['Import'] for model in read(name)['Models']]


def read_row(model: dict, metrics: dict[str, dict[str, str]]) -> Row:
    """Make a row of the entry of its model in a metafile.

    Args:
        model (dict): Entry of the model, with a `Paper Row`.
        metrics (dict[str, dict[str, str]]): `metrics` of the table.
    """
    printed, found = model['Paper Row'], {}
    for result in model['Results']:
        found |= result['Metrics']
    return Row(
        key=printed['Row'],
        model=printed['Model'],
        config=model['Config'].removeprefix('configs/').removesuffix('.py'),
        params=printed.get('Parameters', ''),
        flops=printed['FLOPs'],
        accuracy=tuple('/'.join(found[name] for name in g.values()) for g in metrics.values()),
        speed=printed.get('Images per Second', ''),
        vanilla=printed.get('Vanilla', ''),
        same_as=printed.get('Same Network', ''),
    )


def read_tables(root: Path) -> dict[int, Table]:
    """Read the paper's tables, by number, with their rows in the order of the metafiles.

    Args:
        root (Path): Folder of `model-index.yml`.
    """
    rows = {number: [] for number in _TABLES}
    for model in read_models(root):
        if 'Paper Row' in model:
            number = int(model['Paper Row']['Table'])
            rows[number].append(read_row(model, _TABLES[number].metrics))
    return {n: table._replace(rows=tuple(rows[n])) for n, table in _TABLES.items()}


ROOT = Path(__file__).resolve().parents[2]
TABLES = read_tables(ROOT)


def paper_table(number: int, keys: list[str] | None = None) -> Table:
    """Get one of the paper's tables.

    Args:
        number (int): Number of the table in the paper.
        keys (list[str], optional): Keys of the rows to keep, in the order of the table. Defaults to
            None, all rows.

    Returns:
        Table: The table.

    Raises:
        UserError: There is no such table or row.
    """
    if number not in TABLES:
        known = ', '.join(map(str, TABLES))
        raise UserError(f'there is no Table {number}; choose one of {known}')
    table = TABLES[number]
    there = [row.key for row in table.rows]
    unknown = [key for key in keys or () if key not in there]
    if unknown:
        raise UserError(
            f'Table {number} has no row {", ".join(unknown)}; its rows are {", ".join(there)}'
        )
    return table._replace(rows=tuple(row for row in table.rows if not keys or row.key in keys))
