"""The tables of the documentation: made of the metafiles and the results."""

import re

import pytest

from benchmarks.doc_tables import BLOCK, main, with_tables
from benchmarks.tables.paper import ROOT, TABLES

PAGES = sorted(path.name for path in ROOT.glob('docs/*.md') if '<!-- table:' in path.read_text())


@pytest.mark.parametrize('page', PAGES)
def test_tables_of_a_page_are_those_of_the_results(page):
    text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
    assert text.count('<!-- table:') == len(BLOCK.findall(text))
    assert with_tables(text) == text, 'run `python -m benchmarks.doc_tables`'


def test_all_tables_of_the_paper_and_of_the_studies_are_on_a_page():
    text = ''.join((ROOT / 'docs' / page).read_text(encoding='utf-8') for page in PAGES)
    named = {(kind, of_what) for _, kind, of_what, _ in BLOCK.findall(text)}
    studies = {path.parent.name for path in ROOT.glob('benchmarks/*/table.md')}
    expected = {('paper', str(n)) for n in TABLES} | {('study', name) for name in studies}
    assert expected <= named


def test_a_row_of_table_1_has_the_paper_beside_the_project():
    text = (ROOT / 'docs' / 'tables.md').read_text(encoding='utf-8')
    row = re.search(r'^\| ctx_convnext_t \| .*$', text, re.M)[0].strip('| ').split(' | ')
    assert row[1:6] == ['Contextual ConvNeXt-T', '32M', '31.55M ✓', '4.6G', '4.547G (-0.1)']


def test_changed_tables_are_written_again(tmp_path):
    text = '# Page\n\n<!-- table: paper 2 -->\nold\n<!-- end of table -->\n\nThe end.\n'
    page = tmp_path / 'page.md'
    page.write_text(text)
    main(tmp_path)
    written = page.read_text(encoding='utf-8')
    assert 'Contextual ResNet50' in written and 'old' not in written
    assert written.startswith('# Page\n') and written.endswith('The end.\n')
