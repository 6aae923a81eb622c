"""Tables of text cells. The first row is the heading."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows as aligned columns for a terminal."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows as a Markdown table."""
    heading, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([heading, "|" + " --- |" * len(rows[0]), *rest])
