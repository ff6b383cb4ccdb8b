"""Finished trainings, a line of JSON each, and the table that they make."""

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.study.report import records_of_row, spread
from benchmarks.text import NOTHING, as_markdown, as_text

from .rows import BASES, ROWS, Row

FILE = 'from_vanilla.jsonl'


def load(out: Path, recipe: dict) -> list[dict]:
    """Records of a recipe beneath a folder; those of others are left out."""
    file = out / FILE
    lines = file.read_text(encoding='utf-8').splitlines() if file.is_file() else []
    # A killed call may have left half a line.
    records = [json.loads(line) for line in lines if line.endswith('}')]
    return [record for record in records if record['recipe'] == recipe]


def append(out: Path, record: dict) -> None:
    """Add a record."""
    with (out / FILE).open('a', encoding='utf-8') as file:
        file.write(f'{json.dumps(record)}\n')


def bits(right: Tensor) -> str:
    """Booleans, (N,), as hexadecimal digits."""
    return np.packbits(right.cpu().numpy()).tobytes().hex()


def sampling_error(row: dict[int, dict], other: dict[int, dict]) -> float:
    """Standard error of the difference of two rows' top-1 that the choice of images leaves.

    Args:
        row (dict[int, dict]): Records by seed.
        other (dict[int, dict]): Those of the other row.

    Returns:
        float: In points, of the mean over the seeds that both have.
    """
    seeds = sorted(row.keys() & other.keys())
    right = [[_unpacked(records[seed]) for seed in seeds] for records in (row, other)]
    gains = np.subtract(*(np.mean(own, 0) for own in right))
    return 100 * float(gains.std(ddof=1)) / len(gains) ** 0.5


def _unpacked(record: dict) -> np.ndarray:
    digits = np.frombuffer(bytes.fromhex(record['right']), np.uint8)
    return np.unpackbits(digits, count=record['recipe']['data'][2])


def table(records: list[dict]) -> list[list[str]]:
    """Cells, headings first: mean ± standard deviation over seeds, and differences by seed."""
    headings = ['row', 'network', 'seeds', 'top-1', '− vanilla', '− another', 'recall 1/2/3']
    headings += ['train', 'priors swapped', 'prior spread', 'size of Δp', 'Δw beside w', 'ms/step']
    cells = [headings]
    for row in (*BASES.values(), *ROWS):
        own = records_of_row(records, row.key)
        if own:
            cells.append(_line(row, own, records))
    return cells


def _line(row: Row, own: dict[int, dict], records: list[dict]) -> list[str]:
    def figure(name: str, digits: int = 1) -> str:
        return spread([r['metrics'][name] for r in own.values() if name in r['metrics']], digits)

    def stages(name: str, numbers: tuple[int, ...], digits: int) -> str:
        means = [figure(f'{name}_stage{i}', digits).split(' ')[0] for i in numbers]
        return NOTHING if NOTHING in means else ' / '.join(means)

    def gain(key: str) -> str:
        other = records_of_row(records, key)
        seeds = sorted(own.keys() & other.keys()) if key != row.key else []
        gains = [own[s]['metrics']['top1'] - other[s]['metrics']['top1'] for s in seeds]
        shown = spread(gains, signed=True)
        return f'{shown} ({sampling_error(own, other):.1f})' if gains else shown

    # What starts from scratch has had fewer passes than the vanilla row.
    less_vanilla = NOTHING if row.from_scratch else gain(row.vanilla)
    against = f'{row.against}: {gain(row.against)}' if row.against != row.vanilla else NOTHING
    return [
        row.key, row.model, str(len(own)), figure('top1'), less_vanilla, against,
        stages('recall', (1, 2, 3), 0), figure('train_top1'), figure('top1_swapped'),
        stages('prior_spread', (2, 3, 4), 2), figure('offset_px', 2), figure('delta_share', 2),
        figure('ms_per_step'),
    ]  # fmt: skip


def write_table(records: list[dict], out: Path, note: str) -> None:
    """Print the table, and write it as Markdown."""
    cells = table(records)
    print(as_text(cells), note, sep='\n\n', flush=True)
    (out / 'from_vanilla.md').write_text(f'{as_markdown(cells)}\n\n{note}\n', encoding='utf-8')
