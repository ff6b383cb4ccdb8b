"""Training curves of the study in one figure."""

from pathlib import Path
from statistics import mean

from matplotlib.ticker import MaxNLocator

from mmctx.visualization.style import figure, save

from .plan import PARTS
from .report import RECALL, records_of_row, stage_metrics

COLOURS = (
    '#3b3b3b', '#0072b2', '#009e73', '#cc79a7', '#d55e00', '#56b4e9', '#e69f00', '#8c6d31',
    '#6a3d9a',
)  # fmt: skip
BAND = 0.18


def draw_curves(records: list[dict], out: Path, rows: tuple[str, ...]) -> None:
    """Draw the first metric of each part over the training, and recalls after the stages.

    Args:
        records (list[dict]): Records of one size.
        out (Path): The `.png` file to write.
        rows (tuple[str, ...]): Rows of the classification to draw; other parts are drawn whole.
    """
    parts = [key for key in PARTS if any(r['part'] == key for r in records)]
    panels = [(key, False) for key in parts]
    if any(stage_metrics(r['metrics'], RECALL) for r in records):
        panels.insert(1, ('classification', True))
    with figure(4.6 * len(panels), 3.8) as page:
        for axes, (key, recalls) in zip(page.subplots(1, len(panels), squeeze=False)[0], panels):
            own = [r for r in records if r['part'] == key]
            keys = rows if key == 'classification' else [row.key for row in PARTS[key].rows]
            _draw_panel(axes, own, PARTS[key], keys, recalls)
        save(page, out)


def _draw_panel(axes, records, part, keys, recalls):
    heading, name = next(iter(part.metrics.items()))
    for row in (row for row in part.rows if row.key in keys and records_of_row(records, row.key)):
        runs = list(records_of_row(records, row.key).values())
        # A row has the same colour in every figure.
        colour = COLOURS[keys.index(row.key) % len(COLOURS)]
        if not recalls:
            # Two rows have room for their names.
            label = row.key if len(part.rows) > 2 else f'{row.key}: {row.model}'
            _line(axes, runs, name, part.percent, label, colour, '-')
            continue
        names = stage_metrics(runs[0]['metrics'], RECALL)
        for stage, (name_, style) in enumerate(zip(names, ('-', '--', ':')), 1):
            _line(axes, runs, name_, 1, row.key if stage == 1 else None, colour, style)
    axes.set_xlabel(part.step)
    axes.set_ylabel('true class still considered, %' if recalls else f'{heading}, %')
    title = 'Recall after stage 1 (—), 2 (– –), 3 (···)' if recalls else part.title
    axes.set_title(title, loc='left')
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color='#e4e4e4', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, frameon=False)


def _line(axes, runs, name, percent, label, colour, style):
    """Mean over seeds of a metric at each validation, and the range of the seeds around it."""
    series = [{e['step']: percent * e[name] for e in run['validations']} for run in runs]
    # A validation that was interrupted is missing.
    steps = sorted(set.intersection(*map(set, series)))
    points = [[values[step] for values in series] for step in steps]
    axes.plot(
        steps, [mean(p) for p in points], style, color=colour, linewidth=1.6, label=label,
        marker='o', markersize=2.5,
    )  # fmt: skip
    if len(runs) > 1:
        low, high = ([f(p) for p in points] for f in (min, max))
        axes.fill_between(steps, low, high, color=colour, alpha=BAND, linewidth=0)
