"""Write the tables of the documentation, from the metafiles and the results beside this file.

A page of `docs/` has a table between two comments, the first of which names it:

    <!-- table: paper 1 -->
    <!-- end of table -->

`python -m benchmarks.doc_tables` writes all of them again.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import ratio
from benchmarks.speed.model_benchmark import LATENCY, TRAINING
from benchmarks.speed.model_table import speed_ratio
from benchmarks.tables.figures import Figures, legend, table_cells
from benchmarks.tables.paper import ROOT, TABLES, read_models
from benchmarks.text import as_markdown

RESULTS = ROOT / 'benchmarks'
SPEEDS = RESULTS / 'amd-epyc-2-threads-2026-11-22' / 'tables.json'
BLOCK = re.compile(r'(<!-- table: (\S+) (.*?) -->\n).*?(<!-- end of table -->)', re.DOTALL)


def paper_table(number: str) -> str:
    """A table of the paper beside this project's sizes and speeds, in Markdown, with its legend."""
    table = TABLES[int(number)]
    sizes = {model['Config'].removesuffix('.py'): model['Metadata'] for model in read_models(ROOT)}
    speeds = json.loads(SPEEDS.read_text(encoding='utf-8'))
    measured = speeds['tables'].get(number)
    figures = {}
    for row in table.rows:
        size = sizes[f'configs/{row.config}']
        speed = measured['speed'][row.key] if measured else None
        figures[row.key] = Figures(int(size['Parameters']), int(size['FLOPs']), speed, None)
    where = f'{speeds["device"]}, batch {measured["batch"]}, {speeds["date"]}' if measured else ''
    return '\n\n'.join([as_markdown(table_cells(table, figures)), *legend(table, where)])


def study_table(folder: str) -> str:
    """The tables that a study left in its folder."""
    return (RESULTS / folder / 'table.md').read_text(encoding='utf-8').strip()


def network_table(files: str) -> str:
    """Contextual networks beside their vanilla ones, a line for each network, result and mode.

    Args:
        files (str): Results of the model benchmark beneath `benchmarks/`, separated by spaces.

    Returns:
        str: Table in Markdown, the lines sorted by network.
    """
    lines = []
    for file in files.split():
        results = json.loads((RESULTS / file).read_text(encoding='utf-8'))
        for row in results['rows']:
            ratios = row.get('ratios') or {}
            if ratios:
                cells = [speed_ratio(row), ratios.get(LATENCY), ratios.get(TRAINING)]
                shown = [ratio(value) + '×' * (value is not None) for value in cells]
                lines.append([row['config'], f'`{file}`', row['mode'], *shown])
    figures = ['throughput', 'time of one image', 'time of a training step']
    headings = ['network', 'result', 'mode', *figures]
    return as_markdown([headings, *sorted(lines, key=lambda line: line[0])])


MAKERS: dict[str, Callable[[str], str]] = {
    'paper': paper_table,
    'study': study_table,
    'networks': network_table,
}


def with_tables(text: str) -> str:
    """A page with all of its tables made anew.

    Args:
        text (str): Page in Markdown.

    Returns:
        str: The same page where no table has changed.
    """

    def make(block: re.Match) -> str:
        opening, kind, of_what, closing = block.groups()
        return f'{opening}\n{MAKERS[kind](of_what)}\n\n{closing}'

    return BLOCK.sub(make, text)


def main(docs: Path = ROOT / 'docs') -> None:
    """Write the tables of all pages."""
    for page in sorted(docs.glob('*.md')):
        text = page.read_text(encoding='utf-8')
        made = with_tables(text)
        if made != text:
            page.write_text(made, encoding='utf-8')
            print(f'{page}: tables written')


if __name__ == '__main__':
    main()
