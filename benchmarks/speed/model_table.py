"""The model benchmark's table and plot."""

from pathlib import Path

from benchmarks.report import ratio, with_spread
from benchmarks.text import NOTHING, OK
from mmctx.visualization.style import figure, save

from .model_benchmark import LATENCY, THROUGHPUT, TRAINING

HEADINGS = ['network', 'mode', 'img/s', '×vanilla', 'latency ms', '×vanilla', 'train step ms',
            '×vanilla', 'peak MB', 'train peak MB', '×vanilla']  # fmt: skip
# Heading of a panel, its quantity, and whether it shows speed instead of time.
PANELS = (
    ('Throughput\nhigher is better', THROUGHPUT, True),
    ('Latency of one image\nlower is better', LATENCY, False),
    ('Training step\nlower is better', TRAINING, False),
)
COLOURS = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#999999')


def model_cells(rows: list[dict]) -> list[list[str]]:
    """Make a line of cells for each row of `benchmark_networks`, headings first."""
    return [HEADINGS, *map(_line, rows)]


def speed_ratio(row: dict) -> float | None:
    """Images per second relative to the vanilla network in the same mode and run."""
    value = row.get('ratios', {}).get(THROUGHPUT)
    return None if value is None else 1 / value


def _line(row: dict) -> list[str]:
    if row['status'] != OK:
        line = [row['config'], row['mode'], row['status']]
        return line + [NOTHING] * (len(HEADINGS) - len(line))
    line = [row['config'], row['mode']]
    speed = row.get('images_per_second')
    line += [f'{speed:.4g}' if speed else NOTHING, ratio(speed_ratio(row))]
    for quantity in (LATENCY, TRAINING):
        line.append(with_spread(row[quantity]) if quantity in row else NOTHING)
        line.append(ratio(row.get('ratios', {}).get(quantity)))
    for quantity in (THROUGHPUT, TRAINING):
        peak = row['peak_bytes'].get(quantity)
        line.append(f'{peak / 1e6:.0f}' if peak else NOTHING)
    return [*line, ratio(row.get('memory_ratios', {}).get(TRAINING))]


def model_notes(rows: list[dict], where: str, batch: str, amp: str) -> list[str]:
    """Explain the table, and why some rows have no values."""
    notes = [
        f'{where}.',
        f'{batch} img/s and latency (one image): forward passes without data loading and '
        "post-processing. Train step: forward, the model's own losses on made-up labels, backward, "
        "the recipe's optimizer. Median, ± half the distance of the quartiles.",
        f'×vanilla: to the vanilla network in the same mode, timed in turn. amp is {amp} autocast, '
        'all else float32 without TF32.',
        'Networks whose features in a mode differ from those of eager float32 with the reference '
        'back end are not timed.',
    ]
    return notes + [
        f'{row["config"]}, {row["mode"]}: {row["status"]}, {row["note"]}'
        for row in rows
        if row['note']
    ]


def draw_ratios(rows: list[dict], path: Path, where: str) -> bool:
    """Draw the ratios to the vanilla networks as bars.

    Args:
        rows (list[dict]): Rows that `benchmark_networks` returned.
        path (Path): Picture to write.
        where (str): Line below the picture.

    Returns:
        bool: Whether there was a ratio to draw; if not, nothing is written.
    """
    rows = [row for row in rows if row.get('ratios')]
    if not rows:
        return False
    names, modes = (list(dict.fromkeys(row[key] for row in rows)) for key in ('config', 'mode'))
    panels = [panel for panel in PANELS if any(panel[1] in row['ratios'] for row in rows)]
    width = 0.8 / len(modes)
    size = (1.4 + 0.45 * len(names) * (len(modes) + 0.8)) * len(panels), 3.6
    with figure(*size) as page:
        for axes, (title, quantity, speed) in zip(
            page.subplots(1, len(panels), squeeze=False)[0], panels
        ):
            for i, mode in enumerate(modes):
                values = {r['config']: r['ratios'].get(quantity) for r in rows if r['mode'] == mode}
                heights = {n: 1 / v if speed else v for n, v in values.items() if v}
                centres = [names.index(n) + (i - (len(modes) - 1) / 2) * width for n in heights]
                colour = COLOURS[i % len(COLOURS)]
                bars = axes.bar(centres, heights.values(), 0.9 * width, label=mode, color=colour)
                axes.bar_label(bars, fmt='%.2f', fontsize=8, color='white', label_type='center')
            axes.axhline(1, color='black', linewidth=0.8, linestyle='--', zorder=0)
            axes.set_title(title)
            axes.set_xticks(range(len(names)), names, rotation=15)
            axes.set_xlim(-0.6, len(names) - 0.4)
            axes.margins(y=0.12)
        first = page.axes[0]
        first.set_ylabel('relative to the vanilla network')
        page.legend(
            *first.get_legend_handles_labels(), loc='outside upper center', ncols=len(modes),
            frameon=False,
        )  # fmt: skip
        page.supxlabel(where, fontsize=7, color='#555555')
        save(page, path)
    return True
