"""The study's tables, made of nothing but records and times."""

from collections.abc import Sequence
from statistics import mean, stdev

from mmctx.apis.benchmark.report import describe, milliseconds
from mmctx.apis.tables import NOTHING, as_markdown

from .plan import PARTS, Part, Row

ACCURACY, RECALL = 'top1_stage', 'recall@'


def spread(values: Sequence[float], digits: int = 1, signed: bool = False) -> str:
    """Mean ± standard deviation of a sample; one value has no spread."""
    if not values:
        return NOTHING
    shown = f'{mean(values):{"+" if signed else ""}.{digits}f}'
    return f'{shown} ± {stdev(values):.{digits}f}' if len(values) > 1 else shown


def of_row(records: list[dict], row: Row) -> dict[int, dict]:
    """Records of a row by seed."""
    return {r['seed']: r for r in records if r['row'] == row.key}


def by_stage(metrics: dict, kind: str) -> list[str]:
    """Names of the stages' metrics of a kind, `ACCURACY` or `RECALL`, from the first stage on."""
    return sorted((name for name in metrics if kind in name), key=lambda name: name[-1])


def differences(part: Part, records: list[dict], row: Row) -> list[float]:
    """First metric of a row less that of the row it varies, for each seed that both have, percent.

    Nothing for the part's first row.
    """
    name = next(iter(part.metrics.values()))
    first, other = of_row(records, part.base_of(row)), of_row(records, row)
    return [
        part.percent * (other[seed]['metrics'][name] - first[seed]['metrics'][name])
        for seed in sorted(first.keys() & other.keys())
        if row != part.rows[0]
    ]


def first_times(part: Part, records: list[dict], times: dict) -> dict:
    """Times of the first row that has records."""
    return next(times['rows'][row.key] for row in part.rows if of_row(records, row))


def part_cells(part: Part, records: list[dict], times: dict) -> list[list[str]]:
    """All cells of a part's table, the headings first.

    Args:
        part (Part): The part.
        records (list[dict]): Its records, of one size.
        times (dict): As of `speed.time_rows`, or empty.

    Returns:
        list[list[str]]: A line for each row that has records.
    """
    rows = [row for row in part.rows if of_row(records, row)]
    stages = any(by_stage(r['metrics'], RECALL) for r in records)
    headings = ['row', 'model', '#param.', 'FLOPs']
    headings += ['training step', 'inference'] if times else []
    headings += ['seeds', *part.metrics, f'{next(iter(part.metrics))} compared']
    headings += ['top-1 of stages 1 / 2 / 3 / 4', 'recall after stages 1 / 2 / 3'] * stages
    return [headings, *(_line(part, records, times, row, stages) for row in rows)]


def _line(part: Part, records: list[dict], times: dict, row: Row, stages: bool) -> list[str]:
    runs = of_row(records, row)
    some = next(iter(runs.values()))
    line = [row.key, row.model, f'{some["params"] / 1e6:.2f}M', f'{some["flops"] / 1e6:.1f}M']
    if times:
        first = first_times(part, records, times)
        line += [
            f'{times["rows"][row.key][kind]["median_s"] / first[kind]["median_s"]:.2f}×'
            for kind in ('training', 'inference')
        ]
    line.append(str(len(runs)))
    for name in part.metrics.values():
        line.append(spread([part.percent * r['metrics'][name] for r in runs.values()]))
    gains = differences(part, records, row)
    base = f' ({part.base_of(row).key})' if gains else ''
    line.append(spread(gains, signed=True) + base)
    for kind in (ACCURACY, RECALL) if stages else ():
        means = (
            mean(r['metrics'][name] for r in runs.values())
            for name in by_stage(some['metrics'], kind)
        )
        line.append(' / '.join(f'{value:.0f}' for value in means) or NOTHING)
    return line


def part_report(key: str, records: list[dict], times: dict, recipe: str) -> str:
    """A part's table in Markdown, with what a reader needs to judge it.

    Args:
        key (str): Key of the part.
        records (list[dict]): Its records, of one size, at least one.
        times (dict): As of `speed.time_rows`, or empty.
        recipe (str): Data, iterations and batch, in words.

    Returns:
        str: Markdown.
    """
    part = PARTS[key]
    where = sorted({describe(dict(r, date=r['date'][:10])) for r in records})
    lines = [
        f'{recipe} {part.note}'.strip(),
        '±: standard deviation over seeds. Compared: with the row in brackets, seed by seed; rows '
        'of a seed share the order and the augmentation of the data, not their initial weights. '
        'FLOPs are multiply-adds of one image.',
        f'Trained on: {"; ".join(where)}.',
    ]
    if times:
        first = first_times(part, records, times)
        step, forward = (milliseconds(first[k]['median_s']) for k in ('training', 'inference'))
        lines.append(
            f'Times of {times["batch"]} images, all rows in turn with nothing beside them, in '
            f'terms of the first row, which takes {step} ms a training step and {forward} ms a '
            f'forward pass, on {times["device"]}, {times["date"][:10]}.'
        )
    return '\n\n'.join([f'**{part.title}**', as_markdown(part_cells(part, records, times)), *lines])
