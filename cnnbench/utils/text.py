"""Text for names of files."""

import hashlib
import re
from collections.abc import Iterable


def slug(overrides: Iterable[str]) -> str:
    """Overrides as one short, legible piece of a file name: `epochs_5-seed_0+1`.

    Its characters are those that need no quotes in a shell or on our own command line (`weights=outputs/train/NAME`).
    """
    text = "-".join(sorted(override.replace(",", "+") for override in overrides))
    text = re.sub(r"[^\w.+-]+", "_", re.sub("['\"]", "", text).replace("=", "_")).strip("_")
    if len(text) <= 100:
        return text
    return f"{text[:90].rstrip('-_+')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
