"""Formats of numbers and names for people: the one home of each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from os.path import commonprefix
from unicodedata import combining, east_asian_width

LONG = 100  # characters of a name in a list


def display_width(text: str) -> int:
    """Terminal columns of a text: East Asian wide characters take two, combining marks none."""
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    return 0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """The text on one line, cut in the middle to the display width: long names tend to differ at their ends.

    It is cut between words, within one only where it alone is too long.
    """
    text = " ".join(text.split())
    if display_width(text) <= width:
        return text
    head = _whole_words(_beginning(text, 0.6 * (width - 1)), text)
    tail = _whole_words(_beginning(text[::-1], width - 1 - display_width(head)), text[::-1])
    return f"{head}…{tail[::-1]}"


def shorten_apart(names: Iterable[str], width: int) -> dict[str, str]:
    """Each name with its text cut to the width. Names that would look alike are cut where they differ."""
    short = {name: shorten(name, width) for name in names}
    alike: dict[str, list[str]] = defaultdict(list)
    for name, text in short.items():
        alike[text].append(name)
    for several in alike.values():
        if len(several) > 1:
            short |= _cut_where_they_differ(several, width)
    return short


def _cut_where_they_differ(names: Sequence[str], width: int) -> dict[str, str]:
    texts = [" ".join(name.split()) for name in names]
    begin = commonprefix(texts).rfind(" ") + 1  # noqa: RUF071  # of texts, not of paths
    return {name: f"…{shorten(text[begin:], width - 1)}" for name, text in zip(names, texts, strict=True)}


def wrapped(text: str, width: int) -> list[str]:
    """Lines of the text, none wider than the width on a terminal. A word is broken where it alone is too wide."""
    lines = [""]
    for word in text.split():
        for piece in _pieces(word, width):
            longer = f"{lines[-1]} {piece}" if lines[-1] else piece
            if display_width(longer) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(piece)
    return lines


def _pieces(word: str, width: int) -> Iterator[str]:
    while word:
        piece = _beginning(word, width) or word[0]
        yield piece
        word = word[len(piece) :]


def _whole_words(start: str, text: str) -> str:
    """The beginning of a text without the part of a word at its end, if it has a whole one."""
    whole = start if text[len(start)] == " " else start.rpartition(" ")[0]
    return (whole or start).rstrip()


def _beginning(text: str, width: float) -> str:
    """As much of a text as fits, in one pass: somebody may give a name of 10,000 characters."""
    ends = accumulate(map(_char_width, text))
    return text[: next((count for count, end in enumerate(ends) if end > width), len(text))]


def plural(count: float, noun: str) -> str:
    """`1 epoch`, `1.5 epochs`, `5 classes`."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "tch", "sh")) else "s"
    return f"{count:,} {noun}{ending}" if isinstance(count, int) else f"{count:g} {noun}{ending}"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, each cut where it is very long, and how many more there are."""
    shown = (name if len(name) <= LONG else f"{name[:LONG]}…" for name in names[:most])
    return ", ".join(shown) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def is_number(text: str) -> bool:
    """Whether a text can be read as a number, `1e3`, `nan` and `inf` among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def are(count: int) -> str:
    """The verb after so many of something."""
    return "is" if count == 1 else "are"


def loss_text(value: float) -> str:
    """A loss as 2.303; as 5.1e+22 where a training diverged."""
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.2g}"


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:00:10."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Clock(float):
    """Seconds as 0:42 or 3:00:10."""

    def __format__(self, spec: str) -> str:
        return clock(self)


class Percent(float):
    """A number in percent, with the digits that papers print."""

    def __format__(self, spec: str) -> str:
        return f"{float(self):.2f} %"


class ErrorPercent(float):
    """An error in percent, with the digits that papers print."""

    def __format__(self, spec: str) -> str:
        return f"{float(self):.2f}"


class MeanStd(float):
    """Mean of a metric, with the standard deviation over the runs if there are several."""

    std: float | None
    decimals: int

    def __new__(cls, mean: float, std: float | None, decimals: int) -> "MeanStd":
        made = super().__new__(cls, mean)
        made.std, made.decimals = std, decimals
        return made

    def __format__(self, spec: str) -> str:
        return f"{float(self):.{self.decimals}f}" + (f" ± {self.std:.{self.decimals}f}" if self.std is not None else "")


class Signed(float):
    """Difference of a metric from a published number."""

    decimals: int

    def __new__(cls, value: float, decimals: int) -> "Signed":
        made = super().__new__(cls, value)
        made.decimals = decimals
        return made

    def __format__(self, spec: str) -> str:
        return f"{float(self):+.{self.decimals}f}"


class Ratio(float):
    """A ratio between nets that may be a thousand times apart."""

    def __format__(self, spec: str) -> str:
        return f"{float(self):.3g}"


def probability_percent(probability: float, digits: int = 0) -> str:
    """A probability in percent; 100 % and 0 % only where they are exact, else >99 % and <1 % (or with more digits)."""
    value, step = 100 * float(probability), 10.0**-digits
    if 100 - step / 2 <= value < 100:
        return f">{100 - step:.{digits}f} %"
    return f"<{step:.{digits}f} %" if 0 < value < step / 2 else f"{value:.{digits}f} %"


def number_text(value: float) -> str:
    """A number with two or three digits; powers of ten only for very large and very small ones."""
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"


def milliseconds(number: float) -> str:
    return f"{number:,.0f} ms" if abs(number) >= 100 else f"{number:.3g} ms"


def in_thousands(number: float) -> str:
    return f"{number / 1000:.3g} k" if number >= 950 else f"{number:.3g}"


def in_millions(number: int) -> str:
    return f"{number / 1e6:,.1f} M"


def three_digits(number: float) -> str:
    """`21.8 M`: three digits."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if number >= unit:
            value = number / unit
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}{name}"
    return f"{number:.0f}"


def si_letter(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def si_words(number: float) -> str:
    """1.2e15 as `1.2 peta`."""
    for name, size in (("exa", 1e18), ("peta", 1e15), ("tera", 1e12), ("giga", 1e9), ("mega", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"


def byte_size(count: float) -> str:
    """1.2 GB, 600 MB, 3 kB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
