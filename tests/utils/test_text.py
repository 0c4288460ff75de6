"""Text for people can do nothing but be read."""

import json

import pytest

from cnnbench.utils.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b\tc\nd", "a b\tc\nd"),
        ("Käse 蜜蜂 🐝 ✓ résumé", "Käse 蜜蜂 🐝 ✓ résumé"),
        ("می‌خواهم", "می‌خواهم"),  # a joiner of letters, which Persian needs
        ("\x1b[2J\x1b]0;title\x07", r"\u001b[2J\u001b]0;title\u0007"),
        ("a\r\x9b31mb\x7f", r"a\r\u009b31mb\u007f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf�"),
    ],
)
def test_what_cannot_be_seen_is_shown(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_json_means_the_same_afterwards():
    value = {"name": '\x1b[2J"\\\x7f\u202e\x9b'}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value
