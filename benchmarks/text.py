"""Tables as text."""

NOTHING = '–'
# What became of a measured row.
OK, FAILED, NOT_RUN = 'ok', 'FAILED', 'not run'


def as_text(cells: list[list[str]]) -> str:
    """Format cells as aligned text, with the first two columns left-aligned."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        '  '.join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths)))
        for line in cells
    ]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])


def as_markdown(cells: list[list[str]]) -> str:
    """Format cells as a Markdown table."""
    rule = ['---' if i < 2 else '---:' for i in range(len(cells[0]))]
    return '\n'.join(f'| {" | ".join(line)} |' for line in [cells[0], rule, *cells[1:]])
