"""The study's tables, made of nothing but records."""

from collections.abc import Sequence
from statistics import mean, stdev

from mmctx.apis.tables import NOTHING, as_markdown

from .plan import PARTS, Part, Row


def spread(values: Sequence[float], digits: int = 1, signed: bool = False) -> str:
    """Mean ± standard deviation of a sample; one value has no spread."""
    if not values:
        return NOTHING
    shown = f'{mean(values):{"+" if signed else ""}.{digits}f}'
    return f'{shown} ± {stdev(values):.{digits}f}' if len(values) > 1 else shown


def of_row(records: list[dict], row: Row) -> dict[int, dict]:
    """Records of a row by seed."""
    return {r['seed']: r for r in records if r['row'] == row.key}


def differences(part: Part, records: list[dict], row: Row) -> list[float]:
    """First metric of a row less that of the first row, for each seed that both have, percent."""
    name = next(iter(part.metrics.values()))
    first, other = of_row(records, part.rows[0]), of_row(records, row)
    return [
        part.percent * (other[seed]['metrics'][name] - first[seed]['metrics'][name])
        for seed in sorted(first.keys() & other.keys())
    ]


def part_cells(part: Part, records: list[dict]) -> list[list[str]]:
    """All cells of a part's table, the headings first.

    Args:
        part (Part): The part.
        records (list[dict]): Its records, of one size.

    Returns:
        list[list[str]]: A line for each row that has records.
    """
    rows = [row for row in part.rows if of_row(records, row)]
    recalls = any('recall@' in name for r in records for name in r['metrics'])
    compared = f'{next(iter(part.metrics))} − {part.rows[0].key}'
    headings = ['row', 'model', '#param.', 'FLOPs', 'img/s, training', 'seeds']
    headings += [*part.metrics, compared]
    headings += ['recall after stage 1 / 2 / 3'] if recalls else []
    return [headings, *(_line(part, records, row, recalls) for row in rows)]


def _line(part: Part, records: list[dict], row: Row, recalls: bool) -> list[str]:
    runs = of_row(records, row)
    some = next(iter(runs.values()))
    line = [
        row.key,
        row.model,
        f'{some["params"] / 1e6:.2f}M',
        f'{some["flops"] / 1e6:.1f}M',
        f'{mean(r["images_per_second"] for r in runs.values()):.0f}',
        str(len(runs)),
    ]
    for name in part.metrics.values():
        line.append(spread([part.percent * r['metrics'][name] for r in runs.values()]))
    itself = row == part.rows[0]
    line.append(NOTHING if itself else spread(differences(part, records, row), signed=True))
    if recalls:
        names = sorted(
            (name for name in some['metrics'] if 'recall@' in name),
            key=lambda name: name[-1],
        )
        means = (mean(r['metrics'][name] for r in runs.values()) for name in names)
        line.append(' / '.join(f'{value:.0f}' for value in means) or NOTHING)
    return line


def part_report(key: str, records: list[dict], recipe: str) -> str:
    """A part's table in Markdown, with what a reader needs to judge it.

    Args:
        key (str): Key of the part.
        records (list[dict]): Its records, of one size, at least one.
        recipe (str): Data, iterations and batch, in words.

    Returns:
        str: Markdown.
    """
    part = PARTS[key]
    devices = sorted({r['device'] for r in records})
    versions = sorted({f'torch {r["versions"]["torch"]}' for r in records})
    dates = sorted({r['date'] for r in records})
    when = dates[0] if dates[0] == dates[-1] else f'{dates[0]} to {dates[-1]}'
    lines = [
        f'{recipe}. {"; ".join(devices)}; {", ".join(versions)}; {when}.',
        '±: standard deviation over seeds; of differences, over the seeds that both rows have. '
        'FLOPs are multiply-adds of one image.',
    ]
    lines += [part.note] if part.note else []
    return '\n\n'.join([f'**{part.title}**', as_markdown(part_cells(part, records)), *lines])
