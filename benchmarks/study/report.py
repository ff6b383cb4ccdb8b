"""Tables of the study, made from records and times only."""

from collections.abc import Sequence
from statistics import mean, stdev

from benchmarks.report import describe, milliseconds
from benchmarks.text import NOTHING, as_markdown

from .plan import PARTS, Part, Row
from .speed import KINDS

ACCURACY, RECALL = 'top1_stage', 'recall@'


def spread(values: Sequence[float], digits: int = 1, signed: bool = False) -> str:
    """Format the mean ± standard deviation of a sample; a single value has no deviation."""
    if not values:
        return NOTHING
    shown = f'{mean(values):{"+" if signed else ""}.{digits}f}'
    return f'{shown} ± {stdev(values):.{digits}f}' if len(values) > 1 else shown


def records_of_row(records: list[dict], key: str) -> dict[int, dict]:
    """Records of a row by seed."""
    return {r['seed']: r for r in records if r['row'] == key}


def stage_metrics(metrics: dict, kind: str) -> list[str]:
    """Names of a kind of stage metrics, `ACCURACY` or `RECALL`, in the order of the stages."""
    return sorted((name for name in metrics if kind in name), key=lambda name: name[-1])


def differences(part: Part, records: list[dict], row: Row, base: Row) -> list[float]:
    """First metric of a row minus that of the base, for each seed that both have, in percent."""
    name = next(iter(part.metrics.values()))
    first, other = records_of_row(records, base.key), records_of_row(records, row.key)
    return [
        part.percent * (other[seed]['metrics'][name] - first[seed]['metrics'][name])
        for seed in sorted(first.keys() & other.keys())
    ]


def sampling_error(part: Part, records: list[dict]) -> list[str]:
    """A sentence on the standard error of a single accuracy; none for AP."""
    if 'top-1' not in part.metrics:
        return []
    images = min(r['images'][1] for r in records)
    share = mean(r['metrics'][part.metrics['top-1']] for r in records) / 100
    error = 100 * (share * (1 - share) / images) ** 0.5
    return [
        f'The {images:,} validation images alone give a single top-1 a standard error of '
        f'{error:.1f}, so a difference of one seed shows nothing below {2 * 2**0.5 * error:.0f}.'
    ]


def first_times(part: Part, records: list[dict], times: dict) -> dict:
    """Times of the first row that has records."""
    return next(times['rows'][row.key] for row in part.rows if records_of_row(records, row.key))


def part_cells(part: Part, records: list[dict], times: dict) -> list[list[str]]:
    """Make all cells of a part's table, headings first.

    Args:
        part (Part): The part.
        records (list[dict]): Records of the part, all of one size.
        times (dict): Result of `speed.time_rows`, or empty.

    Returns:
        list[list[str]]: A line for each row that has records.
    """
    rows = [row for row in part.rows if records_of_row(records, row.key)]
    stages = any(stage_metrics(r['metrics'], RECALL) for r in records)
    headings = ['row', 'model', '#param.', 'FLOPs']
    headings += ['training step', 'inference'] if times else []
    headings += ['seeds', *part.metrics, f'less {part.rows[0].key}']
    headings += ['less the row it varies'] * varied(part)
    headings += ['top-1 of stages 1 / 2 / 3 / 4', 'recall after stages 1 / 2 / 3'] * stages
    return [headings, *(_line(part, records, times, row, stages) for row in rows)]


def _line(part: Part, records: list[dict], times: dict, row: Row, stages: bool) -> list[str]:
    runs = records_of_row(records, row.key)
    some = next(iter(runs.values()))
    line = [row.key, row.model, f'{some["params"] / 1e6:.2f}M', f'{some["flops"] / 1e6:.1f}M']
    if times:
        first = first_times(part, records, times)
        line += [
            f'{times["rows"][row.key][kind]["median_s"] / first[kind]["median_s"]:.2f}×'
            for kind in KINDS
        ]
    line.append(str(len(runs)))
    for name in part.metrics.values():
        line.append(spread([part.percent * r['metrics'][name] for r in runs.values()]))
    line.append(_compared(part, records, row, part.rows[0]))
    if varied(part):
        base = part.base_of(row)
        compared = _compared(part, records, row, base) if row.against else NOTHING
        line.append(compared if compared == NOTHING else f'{base.key}: {compared}')
    for kind in (ACCURACY, RECALL) if stages else ():
        means = (
            mean(r['metrics'][name] for r in runs.values())
            for name in stage_metrics(some['metrics'], kind)
        )
        line.append(' / '.join(f'{value:.0f}' for value in means) or NOTHING)
    return line


def _compared(part: Part, records: list[dict], row: Row, base: Row) -> str:
    gains = differences(part, records, row, base) if row != base else []
    # If the base lacks seeds there are fewer differences than the column of seeds says.
    missing = (
        f' ({len(gains)} seeds)' if 0 < len(gains) < len(records_of_row(records, row.key)) else ''
    )
    return spread(gains, signed=True) + missing


def varied(part: Part) -> bool:
    """Whether some rows are variants of another row than the first."""
    return any(row.against for row in part.rows)


def part_report(key: str, records: list[dict], times: dict, recipe: str) -> str:
    """Make a part's table in Markdown, with the notes that a reader needs to judge it.

    Args:
        key (str): Key of the part.
        records (list[dict]): Records of the part, at least one and all of one size.
        times (dict): Result of `speed.time_rows`, or empty.
        recipe (str): Sentences about data, iterations and batch.

    Returns:
        str: Report in Markdown.
    """
    part = PARTS[key]
    where = sorted({describe(dict(r, date=r['date'][:10])) for r in records})
    lines = [
        f'{recipe} {part.note}'.strip(),
        'Figures are of the last validation, in percent; ±: standard deviation over seeds. '
        'Differences are of the first metric, seed by seed; rows of a seed share the order and the '
        'augmentation of the data, not their initial weights. FLOPs: multiply-adds of one image.',
        *sampling_error(part, records),
        f'Trained on: {"; ".join(where)}.',
    ]
    if times:
        first = first_times(part, records, times)
        step, forward = (milliseconds(first[k]['median_s']) for k in KINDS)
        lines.append(
            f'Times: medians over steps of {times["batch"]} random images without loading of data, '
            'all rows in turn, offsets drawn at random, beside those of the first row, which takes '
            f'{step} ms a training step and {forward} ms a forward pass ({times["device"]}, '
            f'{times["date"][:10]}).'
        )
    return '\n\n'.join([f'**{part.title}**', as_markdown(part_cells(part, records, times)), *lines])
