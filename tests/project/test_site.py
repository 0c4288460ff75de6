"""The documentation as a site, and pages that quote the code: what they say is what is there."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import cnnbench
from tests.helpers.paths import ROOT
from tests.helpers.runs import Ran

DOCS = ROOT / "docs"
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
NAMED_ONLY = {"canonical", "next", "prev"}  # links that load nothing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None:
        pytest.skip("needs the extra docs: mkdocs-material")
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(out)],
                           cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return out


class Loaded(HTMLParser):
    """Addresses that a page loads: scripts, styles, pictures, frames."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if (address := given.get(LOADS.get(tag, ""))) and given.get("rel") not in NAMED_ONLY:
            self.found.append(address)


def test_the_site_builds_strictly_with_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert {page.stem for page in DOCS.glob("*.md")} | {"index", "contributing", "changelog"} <= {p.stem for p in pages}
    addresses = [(page.name, one) for page in pages for one in Loaded(page).found]
    assert len(addresses) > 2 * len(pages)
    assert not [one for one in addresses if re.match(r"(\w+:)?//", one[1])]
    styles = "".join(file.read_text() for file in site.glob("**/*.css"))
    assert not re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", styles)


def test_the_site_is_searched_from_its_own_index(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    found = [entry["location"] for entry in index["docs"] if "torchvision::nms" in entry["text"]]
    assert any(place.startswith("installing.html") for place in found)
    assert (
        (site / "search/search_index.js").read_text().startswith("var __index")
    )  # where no server gives the pages out


def test_links_out_of_the_docs_lead_to_copies_on_the_site(site: Path) -> None:
    assert 'href="files/conf/hydra/launcher/slurm.yaml"' in (site / "sweeps.html").read_text()
    assert (site / "files/conf/hydra/launcher/slurm.yaml").read_text() == (
        ROOT / "conf/hydra/launcher/slurm.yaml"
    ).read_text()


def test_readme_is_a_page_for_newcomers() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("scripts/test ") for line in lines)


def sentences() -> Iterator[str]:
    """Every text in the package as it is printed, with `…` where a value is put in."""
    for file in (ROOT / "cnnbench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_troubleshooting_quotes_sentences_that_the_program_says() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    quoted = re.findall(r"(?m)^\| `([^`]+)` \|", page)
    assert len(quoted) > 25
    said = list(sentences())
    for text in quoted:
        parts = [re.escape(part) for part in text.strip("…").split("…")]
        assert any(re.search(".*?".join(parts), one, re.DOTALL) for one in said), f"nothing says: {text}"


def test_the_loader_of_the_deployment_page_answers_as_cnnbench_does(
    cnnbench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    assert cnnbench("export", "weights=zoo:resnet20-cifar10", "out=net.onnx").code == 0
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((70, 51), Image.Resampling.BICUBIC).save("photo.png")
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```", (DOCS / "deployment.md").read_text())
    names: dict = {}
    exec(code, names)
    theirs = names["classify"]("photo.png")
    assert sum(theirs.values()) == pytest.approx(1, abs=1e-5)
    for one in load("zoo:resnet20-cifar10").predict("photo.png")[0].predictions:
        assert theirs[one.name] == pytest.approx(one.probability, abs=0.01)


def load(weights: str):
    return cnnbench.load(weights, device="cpu", precision="fp32")


def test_published_weights_are_those_that_the_code_asks_for() -> None:
    from torchvision.models import get_model_weights

    from cnnbench.weights import sources

    page = (DOCS / "published-weights.md").read_text()
    rows = set(re.findall(r"(?m)^\| `(\w+)` \| `(\w+)`(?: \(default\))? \| `(\S+)` \|", page))
    known = {
        (ours, version.removeprefix("IMAGENET1K_"), entry.url.rpartition("/")[2])
        for ours, theirs in sources.TWINS.items()
        for version, entry in get_model_weights(theirs).__members__.items()
        if version.startswith("IMAGENET1K_V")
    }
    assert rows == known
    assert hashlib.sha256(sources.zoo_file("resnet20-cifar10").read_bytes()).hexdigest() in page


def test_the_api_page_is_what_the_code_says(script: Callable[[str], ModuleType]) -> None:
    reference = script("api_reference")
    assert reference.FILE.read_text() == reference.page(), "run: python scripts/api_reference.py"
    assert all(f"### {name}\n" in reference.page() for name in cnnbench.__all__)


def test_the_gallery_shows_every_picture_once_and_they_are_small() -> None:
    pictures = {f"gallery/{file.name}" for file in (DOCS / "gallery").glob("*.png")}
    shown = re.findall(r"!\[[^\]]+\]\((gallery/[^)]+)\)", (DOCS / "gallery.md").read_text())
    assert sorted(shown) == sorted(pictures)
    assert sum((DOCS / name).stat().st_size for name in pictures) < 600_000
