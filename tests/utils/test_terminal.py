"""stdout and stderr: nothing commands the terminal, nothing is refused by its encoding, bars move as they must."""

import io
import json
import sys

import pytest
from tqdm import tqdm

from cnnbench.utils.terminal import SafeStream, safe_streams


def stream(encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")


def written(raw: io.TextIOWrapper) -> str:
    raw.flush()
    raw.seek(0)
    return raw.read()


def test_names_do_not_command_the_terminal():
    raw = stream()
    print("class \x1b[2Jcat\x1b]0;x\x07", "\u202egpj", "caf\udce9", file=SafeStream(raw))
    assert written(raw) == "class \\u001b[2Jcat\\u001b]0;x\\u0007 \\u202egpj caf�\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_what_the_encoding_lacks_is_escaped_and_json_stays_json(encoding):
    raw, value = stream(encoding), {"file": "é → 🐝 caf\udce9"}
    print(json.dumps(value, ensure_ascii=False), file=SafeStream(raw))
    assert json.loads(written(raw)) == {"file": "é → 🐝 caf�"}


def test_a_progress_bar_is_written_as_it_is():
    plain, safe = io.StringIO(), io.StringIO()
    for file in (plain, SafeStream(safe)):
        with tqdm(total=2, file=file, position=1, leave=False, ascii=True, bar_format="{desc} {n}", ncols=30) as bar:
            bar.update(2)
            bar.refresh()
    assert safe.getvalue() == plain.getvalue()
    assert "\x1b[A" in safe.getvalue()


def test_streams_are_safe_inside_the_block_alone(capsys):
    before = sys.stdout
    with safe_streams():
        print("\x1b[2J")
    assert sys.stdout is before
    assert capsys.readouterr().out == "\\u001b[2J\n"
