"""The paper's tables as printed, each row with the config that trains it here."""

from typing import NamedTuple

from mmctx.errors import UserError


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        key (str): Short name, unique within the table.
        model (str): The paper's name of it.
        config (str): Config file beneath mmctx's configs, without `.py`.
        params (str): Printed #param.; '' where the paper gives none.
        flops (str): Printed FLOPs, which are multiply-adds.
        accuracy (tuple[str, ...]): Printed accuracies in the order of the table's metrics; a slash
            separates several within one.
        speed (str): Printed img/s on a V100. Defaults to '', not given.
        vanilla (str): Key of the row that speed is compared with. Defaults to '', none.
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
        title (str): What it is about.
        rows (tuple[Row, ...]): Its rows.
        truncated (bool): Whether the paper cuts #param. and FLOPs off after the last digit, as it
            does for ResNet50, instead of rounding them. Defaults to False.
        shape (tuple[int, int]): Height and width of the image that FLOPs are counted on.
        frames (int): Images of that size in a clip, for video. Defaults to 1.
        metrics (dict[str, tuple[str, ...]]): Under each heading the metrics of mmengine's log.
        percent (int): Factor from the logged metrics to the printed ones. Defaults to 1.
        note (str): What a reader should know. Defaults to ''.
    """

    title: str
    rows: tuple[Row, ...]
    truncated: bool = False
    shape: tuple[int, int] = (224, 224)
    frames: int = 1
    metrics: dict = {'top-1': ('accuracy/top1',)}
    percent: int = 1
    note: str = ''


def _imagenet(key, model, params, flops, speed, top1, vanilla=''):
    return Row(key, model, f'{key}_in1k', params, flops, (top1,), speed, vanilla)


def _ablation(config, model, params, flops, top1):
    key = config[:2]
    vanilla = f'{key[0]}1'
    same_as = 'resnet50_in1k' if key == vanilla else ''
    if key in ('a5', 'b4', 'c4'):
        same_as = 'ctx_resnet50_in1k'
    vanilla = '' if key == vanilla else vanilla
    return Row(key, model, f'ablations/{config}', params, flops, (top1,), '', vanilla, same_as)


def _recognizer(key, model, flops, accuracy, vanilla=''):
    return Row(key, model, f'tsm_{key}_k400', '', flops, (accuracy,), '', vanilla)


def _detector(key, model, flops, box, mask, vanilla=''):
    return Row(key, model, f'mask_rcnn_{key}_coco', '', flops, (box, mask), '', vanilla)


_COCO = ('coco/{}_mAP', 'coco/{}_mAP_50', 'coco/{}_mAP_75')

# fmt: off
TABLES = {
    1: Table('ImageNet-1K, 224×224, single crop', (
        _imagenet('regnety_4g', 'RegNetY-4G', '21M', '4.0G', '1156.7', '80.0'),
        _imagenet('regnety_8g', 'RegNetY-8G', '39M', '8.0G', '591.7', '81.7'),
        _imagenet('regnety_16g', 'RegNetY-16G', '84M', '16.0G', '334.7', '82.9'),
        _imagenet('swin_t', 'Swin-T', '28M', '4.5G', '757.9', '81.3'),
        _imagenet('swin_s', 'Swin-S', '50M', '8.7G', '436.7', '83.0'),
        _imagenet('swin_b', 'Swin-B', '88M', '15.4G', '286.6', '83.5'),
        _imagenet('convnext_t', 'ConvNeXt-T', '29M', '4.5G', '774.7', '82.1'),
        _imagenet('convnext_s', 'ConvNeXt-S', '50M', '8.7G', '447.1', '83.1'),
        _imagenet('convnext_b', 'ConvNeXt-B', '89M', '15.4G', '292.1', '83.8'),
        _imagenet('ctx_convnext_t', 'Contextual ConvNeXt-T', '32M', '4.6G', '770.6', '83.9',
                  vanilla='convnext_t'),
        _imagenet('ctx_convnext_s', 'Contextual ConvNeXt-S', '53M', '8.9G', '445.2', '84.6',
                  vanilla='convnext_s'),
        _imagenet('ctx_convnext_b', 'Contextual ConvNeXt-B', '93M', '15.8G', '291.0', '85.2',
                  vanilla='convnext_b'),
    )),
    2: Table(
        'Kinetics-400, TSM, 16 frames, 224×224', (
            _recognizer('resnet50', 'ResNet50', '65G', '74.7/91.4'),
            _recognizer('resnet101', 'ResNet101', '125G', '75.9/92.1'),
            _recognizer('ctx_resnet50', 'Contextual ResNet50', '68G', '77.0/93.1',
                        vanilla='resnet50'),
        ),
        truncated=True, frames=16,
        metrics={'top-1/top-5': ('acc/top1', 'acc/top5')},
        percent=100,
        note=(
            'The contextual row is above the vanilla one by what it is in Tables 4–6 here: 0.1G, '
            'not 0.2G, a frame.')),
    3: Table(
        'COCO val2017, Mask R-CNN, 1280×800', (
            _detector('swin_t', 'Swin-T', '267G', '46.0/68.1/50.3', '41.6/65.1/44.9'),
            _detector('convnext_t', 'ConvNeXt-T', '262G', '46.2/67.9/50.8', '41.7/65.0/44.9'),
            _detector('ctx_convnext_t', 'Contextual ConvNeXt-T', '267G', '47.3/69.0/52.2',
                      '42.7/66.2/45.6', vanilla='convnext_t'),
        ),
        shape=(800, 1280),
        metrics={
            'box AP/50/75': tuple(name.format('bbox') for name in _COCO),
            'mask AP/50/75': tuple(name.format('segm') for name in _COCO),
        },
        percent=100),
    4: Table('ImageNet-1K, ResNet50: contexts and convolutions', (
        _ablation('a1_resnet50', 'ResNet50', '25.5M', '4.1G', '76.58'),
        _ablation('a2_prior_as_input', '+Ctx', '25.7M', '4.1G', '77.18'),
        _ablation('a3_no_prior', '+CtxConv', '27.2M', '4.2G', '77.59'),
        _ablation('a4_deform', '+Deform', '25.7M', '4.2G', '77.24'),
        _ablation('a5_contextual', '+Ctx +CtxConv', '27.9M', '4.3G', '79.35'),
    ), truncated=True),
    5: Table('ImageNet-1K, ResNet50: offsets', (
        _ablation('b1_no_offsets', 'no offset', '25.5M', '4.1G', '77.18'),
        _ablation('b2_weight_offset', 'weight offset', '27.5M', '4.2G', '78.30'),
        _ablation('b3_sampling_offset', 'sampling offset', '25.9M', '4.3G', '78.44'),
        _ablation('b4_both_offsets', 'both', '27.9M', '4.3G', '79.35'),
    ), truncated=True, note=(
        'The paper gives b1 the size of plain ResNet50 but not its top-1, which is 76.58 in a1 and '
        'c1; b1 is plain ResNet50 here.')),
    6: Table('ImageNet-1K, ResNet50: contextual stages, width d of the class embeddings', (
        _ablation('c1_no_stages', 'none, d=256', '25.5M', '4.1G', '76.58'),
        _ablation('c2_stage4', 'stage 4, d=256', '26.7M', '4.1G', '77.86'),
        _ablation('c3_stages3to4', 'stages 3–4, d=256', '27.7M', '4.2G', '78.63'),
        _ablation('c4_stages2to4', 'stages 2–4, d=256', '27.9M', '4.3G', '79.35'),
        _ablation('c5_stages1to4', 'stages 1–4, d=256', '28.0M', '4.3G', '77.99'),
        _ablation('c6_embed64', 'stages 2–4, d=64', '27.3M', '4.2G', '77.59'),
        _ablation('c7_embed128', 'stages 2–4, d=128', '27.5M', '4.3G', '78.44'),
        _ablation('c8_embed512', 'stages 2–4, d=512', '28.3M', '4.3G', '78.89'),
    ), truncated=True),
}
# fmt: on


def paper_table(number: int, keys: list[str] | None = None) -> Table:
    """One of the paper's tables.

    Args:
        number (int): Its number in the paper.
        keys (list[str], optional): Only these rows, in the table's order. Defaults to all.

    Returns:
        Table: The table.

    Raises:
        UserError: If there is no such table or row.
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
