"""Plain aligned columns for a terminal."""

from collections.abc import Sequence


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces between; the last column, when all of it are numbers, to the right. Control
    characters (a scraped label may hold any) are shown escaped."""
    cells = [[_safe(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = all(_is_number(row[-1]) for row in cells[1:])
    lines = []
    for row in cells:
        last = row[-1].rjust(widths[-1]) if numeric else row[-1]
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), last]))
    return "".join(line.rstrip() + "\n" for line in lines)


def _safe(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
