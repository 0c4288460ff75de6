"""Text that leaves the program, for people and for names of files."""

import hashlib
import json
import re
from collections.abc import Iterable

CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but the tab and the line feed
DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
INVISIBLE = "\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"
HIDDEN = re.compile(f"[{CONTROL}{DIRECTION}{INVISIBLE}]")
SURROGATE = re.compile("[\ud800-\udfff]")  # a byte of a file name that is not UTF-8


def printable(text: str) -> str:
    r"""Text that can only be read: it cannot command a terminal or reorder a line.

    Control characters, marks of direction and invisible characters become escapes (`\u001b`), as in JSON; bytes that
    are not UTF-8 become �. Tabs and line feeds stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return HIDDEN.sub(lambda found: json_escape(found[0]), SURROGATE.sub("\ufffd", text))


def json_escape(text: str) -> str:
    r"""Characters as in a string of JSON, in ASCII: `\u202e`."""
    return json.dumps(text)[1:-1]


def escaped(text: str) -> str:
    """JSON whose strings cannot command a terminal, and mean what they did."""
    return HIDDEN.sub(lambda found: json_escape(found[0]), SURROGATE.sub(lambda found: json_escape(found[0]), text))


def slug(overrides: Iterable[str]) -> str:
    """Overrides as one short, legible piece of a file name: `epochs_5-seed_0+1`.

    Its characters are those that need no quotes in a shell or on our own command line (`weights=outputs/train/NAME`).
    """
    text = "-".join(sorted(override.replace(",", "+") for override in overrides))
    text = re.sub(r"[^\w.+-]+", "_", re.sub("['\"]", "", text).replace("=", "_")).strip("_")
    if len(text) <= 100:
        return text
    return f"{text[:90].rstrip('-_+')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def shortened(name: str, longest: int, whole: str) -> str:
    """A name of parts with a dash between, without those that are too much, and with a hash of the whole in their
    place."""
    room, kept = longest - 9, name
    while len(kept) > room and "-" in kept:
        kept = kept.rpartition("-")[0]
    return f"{kept[:room].rstrip('-_+.')}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
