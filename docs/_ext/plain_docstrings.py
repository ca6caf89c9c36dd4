"""Docstrings are plain text with `code` and tables; this turns them into the markup that autodoc expects."""

import re

from sphinx.application import Sphinx


def escape(text: str) -> str:
    """Plain text as reStructuredText: code in backticks becomes a literal, everything else stands as it is."""
    parts = re.split(r"`+([^`]+)`+", text)
    plain = [re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" for part in parts[1::2]]
    pairs = zip(plain, [*code, ""], strict=True)
    return "".join(text + ("\\ " if text[-1:].isalnum() and literal else "") + literal for text, literal in pairs)


def table(rows: list[str]) -> list[str]:
    """The rows | a | b | of a table, of which the second is a rule, as a list-table."""
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row.strip()[1:-1])] for row in rows if "--" not in row]
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in cells:
        for i, cell in enumerate(row):
            lines.append(f"   {'* -' if i == 0 else '  -'} {escape(cell.replace(chr(92) + '|', '|'))}")
    return [*lines, ""]


def convert(lines: list[str]) -> list[str]:
    """A docstring's lines in reStructuredText: paragraphs, lists, tables, indented code, a command's `Args:`."""
    out: list[str] = []
    rows: list[str] = []
    within_args = code = False
    for line in [*lines, ""]:
        if line.lstrip().startswith("|") and line.rstrip().endswith("|") and line.count("|") > 2:
            rows.append(line)
            continue
        if rows:
            out, rows = out + table(rows), []
        if not line.strip():
            out, code = [*out, ""], False
        elif line.strip() == "Args:":
            within_args = True
        elif within_args and (found := re.fullmatch(r" +(\w+): (.*)", line)):
            out.append(f":param {found[1]}: {escape(found[2])}")
        elif line.startswith("    ") and not within_args and (code or not out or not out[-1]):
            out, code = [*out, *([] if code else ["::", ""]), line], True
        else:
            out += paragraph_line(line, out[-1] if out else "")
    return out


def paragraph_line(line: str, before: str) -> list[str]:
    """A line of a paragraph or of a list, with the blank line that ends or begins a list."""
    item, goes_on = line.startswith("- "), line.startswith("  ") and before.startswith(("- ", "  "))
    starts = item and not before.startswith(("- ", "  ")) and before
    ends = not item and not goes_on and before.startswith(("- ", "  "))
    text = "- " + escape(line[2:]) if item else ("  " if goes_on else "") + escape(line.strip())
    return [*([""] if starts or ends else []), text]


def rewrite(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = convert(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", rewrite)
    return {"parallel_read_safe": True}
