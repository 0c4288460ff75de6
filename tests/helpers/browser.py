"""A real browser, for pages that must open anywhere."""

import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def screenshot(page: Path, shot: Path, size: str = "1200,2200") -> None:
    """The page as the browser draws it; an error if it wanted to load anything."""
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={shot.parent}/u", f"--window-size={size}", "--hide-scrollbars",
         f"--screenshot={shot}", "--enable-logging=stderr", "--v=0", f"file://{page}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert shot.exists(), done.stderr
    assert "Refused to load" not in done.stderr and "net::ERR" not in done.stderr
