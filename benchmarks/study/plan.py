"""Rows of the study and their seeds, in two parts and three sizes."""

from pathlib import Path
from typing import NamedTuple

from mmctx.errors import UserError

SIZES = ('cpu', 'cpu_long', 'gpu')
CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'study'


class Row(NamedTuple):
    """A network or a way to train it, run once for each seed.

    Attributes:
        key (str): Short name, that of the paper's Tables 4 and 5 if the row is in them.
        model (str): Description of the network.
        config (str): Config file beneath `configs/study/<size>/`, without `.py`. A size without
            that file does not have the row.
        seeds (int): Number of seeds: 0, 1, …
        against (str): Key of the row of which this row is a variant. Defaults to '', the first row
            of the part.
    """

    key: str
    model: str
    config: str
    seeds: int
    against: str = ''


class Part(NamedTuple):
    """Rows that are compared with each other.

    Attributes:
        title (str): Title of the table.
        rows (tuple[Row, ...]): Rows, of which the first is the vanilla network.
        metrics (dict[str, str]): Metrics in mmengine's log by heading; the first is compared.
        percent (int): Factor from the logged metrics to percent. Defaults to 1.
        note (str): Remark for readers. Defaults to ''.
        step (str): Unit by which validations are numbered. Defaults to 'iteration'.
    """

    title: str
    rows: tuple[Row, ...]
    metrics: dict[str, str]
    percent: int = 1
    note: str = ''
    step: str = 'iteration'

    def base_of(self, row: Row) -> Row:
        """Row of which a row is a variant."""
        against = row.against or self.rows[0].key
        return next(other for other in self.rows if other.key == against)


class Run(NamedTuple):
    """One training of a row; `size` is one of `SIZES` and `part` the part's key."""

    size: str
    part: str
    row: Row
    seed: int

    @property
    def config(self) -> Path:
        """Config file of the run."""
        return config_file(self.size, self.row)

    @property
    def name(self) -> str:
        """Name of the run, unique in its part."""
        return f'{self.row.key}-seed{self.seed}'


PARTS = {
    'classification': Part(
        'Tiny-ImageNet, ResNet50 for small images',
        (
            Row('a1', 'ResNet50', 'a1_vanilla', 3),
            Row('a2', '+Ctx', 'a2_prior_as_input', 3),
            Row('a3', '+CtxConv', 'a3_no_prior', 3),
            Row('a4', '+Deform (DCNv2)', 'a4_deform', 3),
            Row('a5', '+Ctx +CtxConv', 'a5_contextual', 3, 'a2'),
            Row('b2', 'a5, weight offset only', 'b2_weight_offset', 1, 'a5'),
            Row('b3', 'a5, sampling offset only', 'b3_sampling_offset', 1, 'a5'),
            Row('rerank', 'a5, every stage scores all classes', 'rerank', 3, 'a2-rerank'),
            Row('a2-rerank', 'a2, every stage scores all classes', 'a2_rerank', 3, 'a2'),
            Row('warm-up', 'a5, `rerank` in the first half', 'warm_up', 3, 'a5'),
            Row('kept-more', 'a5, 1.5 times as many classes kept', 'kept_more', 1, 'a5'),
            Row(
                'context-lr',
                'rerank, new parameters at 0.3 of the rate',
                'context_lr',
                3,
                'rerank',
            ),
            Row(
                'LN',
                'rerank, LayerNorm in predictors and classifying',
                'layer_norm',
                1,
                'rerank',
            ),
        ),
        {'top-1': 'accuracy/top1', 'top-5': 'accuracy/top5'},
        note='a1–a5, b2, b3: rows of Tables 4 and 5; the rows below vary them. a4 has the offsets '
        'and masks of DCNv2, made by the predictor of a3. +Ctx is not the prior alone: class '
        'embeddings take the place of the linear classifier, and every stage has a loss. Where the '
        'stages drop classes, top-5 cannot exceed the last recall.',
    ),
    'detection': Part(
        'Rendered shapes, Mask R-CNN',
        (
            Row('vanilla', 'small ConvNeXt', 'mask_rcnn_vanilla', 3),
            Row('contextual', 'small Contextual ConvNeXt', 'mask_rcnn_contextual', 3),
        ),
        {'box AP': 'coco/bbox_mAP', 'mask AP': 'coco/segm_mAP'},
        percent=100,
        note='Both from scratch, so the classes that the contextual network considers mean '
        'nothing: this shows what its convolutions do, not what pretrained embeddings add.',
        step='epoch',
    ),
}


def config_file(size: str, row: Row) -> Path:
    """Path of the config of a row in a size; the file is missing if the size lacks the row."""
    return CONFIGS / size / f'{row.config}.py'


def plan_runs(
    size: str, parts: list[str], rows: list[str] | None = None, seeds: int = 0
) -> list[Run]:
    """Plan the runs of some parts, the first seed of all rows before the second one.

    Args:
        size (str): Size of the study, one of `SIZES`.
        parts (list[str]): Keys of the parts in `PARTS`.
        rows (list[str], optional): Keys of the rows. Defaults to None, all that the size has.
        seeds (int): Number of seeds for every row. Defaults to 0, each row's own number.

    Returns:
        list[Run]: Runs in the order in which they start.

    Raises:
        UserError: The parts lack a row in this size.
    """
    there = {
        row.key: (part, row)
        for part in parts
        for row in PARTS[part].rows
        if config_file(size, row).is_file()
    }
    unknown = [key for key in rows or () if key not in there]
    if unknown:
        raise UserError(
            f'size {size} has no row {", ".join(unknown)}; its rows are {", ".join(there)}'
        )
    runs = [
        Run(size, part, row, seed)
        for part, row in there.values()
        if not rows or row.key in rows
        for seed in range(seeds or row.seeds)
    ]
    return sorted(runs, key=lambda run: run.seed)


def planned_run(record: dict, size: str) -> Run | None:
    """Run of a record; None if the size no longer has its row."""
    rows = PARTS[record['part']].rows if record['part'] in PARTS else ()
    row = next((row for row in rows if row.key == record['row']), None)
    if row is None or not config_file(size, row).is_file():
        return None
    return Run(size, record['part'], row, record['seed'])
