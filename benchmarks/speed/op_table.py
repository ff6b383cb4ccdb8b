"""The op benchmark's table."""

from benchmarks.report import ratio, with_spread
from benchmarks.text import NOTHING, OK

from .op_benchmark import PASSES

HEADINGS = ['shape', 'formulation', 'B', 'forward ms', '×plain', 'GB/s', 'GFLOP/s',
            'backward ms', '×plain', 'GB/s', 'GFLOP/s', 'both ms', '×plain', 'peak MB']  # fmt: skip


def op_cells(rows: list[dict]) -> list[list[str]]:
    """Make a line of cells for each row of `benchmark_shape`, headings first."""
    return [HEADINGS, *map(_line, rows)]


def _line(row: dict) -> list[str]:
    line = [row['shape'], row['formulation'], str(row['batch'])]
    if row['status'] == OK:
        for name in PASSES:
            times = row['passes'][name]
            line += [with_spread(times), ratio(times['ratio_to_plain'])]
            if name != PASSES[-1]:
                line += [
                    f'{times["bytes_per_s"] / 1e9:.3g} ({times["share_of_copy"]:.1%})',
                    f'{times["flop_per_s"] / 1e9:.3g} ({times["share_of_matmul"]:.1%})',
                ]
        peak = row['peak_bytes'][PASSES[-1]]
        line.append(NOTHING if peak is None else f'{peak / 1e6:.0f}')
    else:
        line += [row['status'], *[NOTHING] * (len(HEADINGS) - len(line) - 1)]
    return line


def op_notes(rows: list[dict], ceilings: dict[str, float], where: str) -> list[str]:
    """Explain the table, and why some rows have no figures."""
    copy, product, single = (value / 1e9 for value in ceilings.values())
    notes = [
        f'{where}.',
        'Times: median, ± half the distance of the quartiles. ×plain: to the plain '
        'convolution (static weights) timed in turn with the others.',
        'GB/s: each input and output moved once, in percent of a copy measured in this run '
        f'({copy:.4g} GB/s read and written). GFLOP/s: 10 FLOP for each tap, channel and pixel '
        'forward and 28 backward (depthwise), in percent of a matrix product measured in this run '
        f'({single:.4g} GFLOP/s in float32, for depthwise; {product:.4g} in the type, for dense).',
        'Formulations whose output or gradients are off from the float64 reference are not timed.',
    ]
    return notes + [
        f'{row["shape"]}, {row["formulation"]}: {row["status"]}, {row["note"]}'
        for row in rows
        if row['status'] != OK
    ]
