"""Text of help pages, wrapped to the terminal: no word and no setting is broken."""

import re
import shutil
import textwrap

WIDTHS = (60, 140)  # of a page, whatever the terminal's
UNBROKEN = re.compile(r"\{[^}]*\}|`[^`]*`")  # a setting or a command with spaces in it


def page_width() -> int:
    """Columns of a help page: the terminal's; 80 in a pipe."""
    return max(WIDTHS[0], min(shutil.get_terminal_size((80, 24)).columns, WIDTHS[1]))


def wrapped(text: str, first: str = "", then: str = "") -> str:
    """Lines of a text. first, then: what the first line begins with, and all others."""
    joined = UNBROKEN.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.fill(joined, page_width(), initial_indent=first, subsequent_indent=then, break_on_hyphens=False,
                          break_long_words=False)  # fmt: skip
    return lines.replace("\0", " ")


def entry(name: str, text: str, indent: int) -> str:
    """A name and what it means, which begins at a column, or on a line of its own where the name is longer."""
    begin = f"  {name:{indent - 3}} "
    if len(begin) > indent and text:
        return f"  {name}\n{wrapped(text, ' ' * indent, ' ' * indent)}"
    return wrapped(text, begin, " " * indent) if text else f"  {name}"


def example(command: str, indent: int = 2) -> str:
    """A command that can be copied, over several lines where it is long."""
    room, lines = page_width() - indent - 2, [""]
    for word in re.findall(r"'[^']*'|\S+", command):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room - 4 * (len(lines) > 1):
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(" " * (indent + 4 * (at > 0)) + line for at, line in enumerate(lines))
