"""The paper's tables beside this project's figures."""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from benchmarks.logs import read_logs
from benchmarks.text import NOTHING
from benchmarks.throughput import measure_throughput
from mmctx.apis.complexity import measure_complexity
from mmctx.cli.config import load_config
from mmctx.cli.running import build_model
from mmctx.compat.config_paths import config_dir

from .paper import Row, Table


class Figures(NamedTuple):
    """What this project has in a row.

    Attributes:
        params (int): Parameters.
        flops (int): Multiply-adds of one image or clip.
        speed (float | None): Images or clips per second; None where not measured.
        accuracy (Accuracy | None): Accuracy of a run; None without one.
    """

    params: int
    flops: int
    speed: float | None
    accuracy: 'Accuracy | None'


class Accuracy(NamedTuple):
    """The last validation of a run.

    Attributes:
        metrics (dict): Its line in mmengine's log.
        epochs (int): Epochs that the recipe has.
    """

    metrics: dict
    epochs: int


def config_path(row: Row) -> Path:
    """A row's config file, in a checkout or in an installed package."""
    return config_dir().resolve() / f'{row.config}.py'


def compare(value: Decimal, printed: str, truncated: bool = False, more: int = 0) -> str:
    """Set a figure beside the paper's.

    Args:
        value (Decimal): The figure, in the printed unit.
        printed (str): The paper's, for example '25.5M'.
        truncated (bool): Whether the paper truncates rather than rounds. Defaults to False.
        more (int): How many digits to show beyond the paper's. Defaults to 0.

    Returns:
        str: The figure with '✓' if the paper would print it the same, '(✓)' if only by the other
        of the two rules, else with the difference.
    """
    digits = printed.rstrip('MG')
    target = Decimal(digits)
    rule, other = (ROUND_DOWN, ROUND_HALF_UP) if truncated else (ROUND_HALF_UP, ROUND_DOWN)
    ours = value.quantize(target, rounding=rule)
    if ours == target:
        mark = '✓'
    elif value.quantize(target, rounding=other) == target:
        mark = '(✓)'
    else:
        mark = f'({ours - target:+})'
    decimals = len(digits.partition('.')[2]) + more
    return f'{value:.{decimals}f}{printed.removeprefix(digits)} {mark}'


def read_accuracy(work_dir: Path, names: list[str]) -> dict | None:
    """The last validation of the newest run in a work dir.

    Args:
        work_dir (Path): The folder in which mmengine makes one for each run.
        names (list[str]): Metrics that make a line of the log one of a validation.

    Returns:
        dict | None: Metrics by name, and the epoch as `step`; None without a validation.
    """
    for lines in reversed(read_logs(work_dir)):
        validations = [entry for entry in lines if entry.keys() >= set(names)]
        if validations:
            return validations[-1]
    return None


def find_accuracy(table: Table, row: Row, work_dirs: Path) -> Accuracy | None:
    """The accuracy of a row's own run, else of a run of the same network.

    Args:
        table (Table): The row's table.
        row (Row): The row.
        work_dirs (Path): Folder of the work dirs, each named like its config.

    Returns:
        Accuracy | None: None if there is no such run.
    """
    epochs = Config.fromfile(config_path(row), import_custom_modules=False).train_cfg.max_epochs
    names = [name for group in table.metrics.values() for name in group]
    for config in filter(None, (row.config, row.same_as)):
        metrics = read_accuracy(work_dirs / Path(config).name, names)
        if metrics:
            return Accuracy(metrics, epochs)
    return None


def measure_row(
    table: Table, row: Row, work_dirs: Path, batch_size: int = 0, seconds: float = 0
) -> Figures:
    """Build a row's model and take its figures.

    Args:
        table (Table): The row's table.
        row (Row): The row.
        work_dirs (Path): Folder of the work dirs, each named like its config.
        batch_size (int): Images or clips at a time when the throughput is measured; 0 measures
            none. Defaults to 0.
        seconds (float): Seconds to measure the throughput for. Defaults to 0.

    Returns:
        Figures: What this project has in the row.
    """
    model = build_model(load_config(str(config_path(row)), {'pretrained': None}))
    params, flops = measure_complexity(model, table.shape)
    speed = None
    if batch_size:
        images = batch_size * table.frames
        speed = measure_throughput(model, table.shape, images, seconds) / table.frames
    return Figures(params, flops, speed, find_accuracy(table, row, work_dirs))


def table_cells(table: Table, figures: dict[str, Figures]) -> list[list[str]]:
    """All cells of a table, the headings first.

    Args:
        table (Table): The paper's table.
        figures (dict[str, Figures]): This project's figures, by the keys of the rows.

    Returns:
        list[list[str]]: The paper's columns, each with this project's to its right.
    """
    columns = [_column(table, row, figures) for row in table.rows]
    headings = [name for name in columns[0] if any(name in column for column in columns)]
    return [headings, *([column[name] for name in headings] for column in columns)]


def _column(table: Table, row: Row, figures: dict[str, Figures]) -> dict[str, str]:
    ours = figures[row.key]
    params, flops = Decimal(ours.params).scaleb(-6), Decimal(ours.flops).scaleb(-9)
    cells = {'row': row.key, 'model': row.model}
    if row.params:
        cells["paper's #param."] = row.params
        cells['#param.'] = compare(params, row.params, table.truncated, more=2)
    else:
        cells['#param.'] = f'{params:.2f}M'
    cells["paper's FLOPs"] = row.flops
    cells['FLOPs'] = compare(flops, row.flops, table.truncated, more=2)
    if row.speed:
        speeds = {other.key: float(other.speed) for other in table.rows}
        cells["paper's img/s"] = row.speed
        cells["paper's relative"] = _relative(row, speeds)
    if ours.speed is not None:
        cells[_unit(table)] = f'{ours.speed:.{1 if ours.speed >= 10 else 3}f}'
        cells['relative'] = _relative(row, {key: other.speed for key, other in figures.items()})
    for (heading, names), printed in zip(table.metrics.items(), row.accuracy):
        cells[f"paper's {heading}"] = printed
        cells[heading] = _accuracy_cell(ours.accuracy, names, printed, table.percent)
    return cells


def _unit(table: Table) -> str:
    return 'clips/s' if table.frames > 1 else 'img/s'


def _relative(row: Row, speeds: dict) -> str:
    vanilla = speeds.get(row.vanilla)
    return f'{speeds[row.key] / vanilla:.3f}' if vanilla else NOTHING


def _accuracy_cell(accuracy: Accuracy | None, names, printed: str, percent: int) -> str:
    if accuracy is None:
        return NOTHING
    values = [Decimal(str(accuracy.metrics[name])) * percent for name in names]
    targets = printed.split('/')
    epoch = accuracy.metrics['step']
    if epoch < accuracy.epochs:
        shown = '/'.join(str(v.quantize(Decimal(t))) for v, t in zip(values, targets))
        return f'{shown} after {epoch} of {accuracy.epochs} epochs'
    return ' / '.join(compare(value, target) for value, target in zip(values, targets))


def legend(table: Table, device: str = '') -> list[str]:
    """What the marks and columns of a table mean.

    Args:
        table (Table): The table.
        device (str): What throughput was measured on. Defaults to '', not measured.

    Returns:
        list[str]: A line for each matter.
    """
    rule, other = ('truncated', 'rounded') if table.truncated else ('rounded', 'truncated')
    of = 'ResNet50' if table.truncated else 'all networks but ResNet50'
    size = f'{table.shape[1]}×{table.shape[0]}'
    each = f'clip of {table.frames} frames' if table.frames > 1 else 'image'
    lines = [
        f'✓ #param. or FLOPs agree to the printed digit when {rule}, as the paper prints those of '
        f'{of}; (✓) only when {other}; else the difference. Accuracies are rounded.',
        f'FLOPs are multiply-adds of one {each}, {size}. {NOTHING} no run found.',
    ]
    if table.rows[0].speed:
        lines.append("The paper's img/s are of a V100.")
    if device:
        lines.append(
            f'{_unit(table)} on {device}, float32; '
            "relative: to the vanilla network's, if that is printed."
        )
    return [*lines, table.note] if table.note else lines
