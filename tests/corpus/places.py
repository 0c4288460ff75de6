"""Places to write to and images to read, as people type them."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.layouts import split_tree

WRITERS = (
    "predict d weights={{run}} device=cpu out={place}",
    "predict d weights={{run}} device=cpu sheet={place}",
    "summary model=resnet8 out={place}",
    "report {{run}} out={place}",
    "export weights={{run}} format=safetensors out={place}",
)


def file_there(here: Path) -> None:
    (here / "kept.json").write_text("{}")


def folder_there(here: Path) -> None:
    (here / "folder.json").mkdir()


def link_out(here: Path) -> None:
    (here / "target").write_text("old")
    (here / "link.json").symlink_to(here / "target")


def dangling(here: Path) -> None:
    (here / "link.json").symlink_to(here / "no" / "folder" / "x.json")


def link_loop(here: Path) -> None:
    (here / "link.json").symlink_to(here / "link.json")


def nothing(here: Path) -> None:
    pass


# place -> (what stands there, whether it can be written for those that write such a file; None: either)
PLACES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "dot": (".", nothing),
    "root": ("/", nothing),
    "dots": ("..", nothing),
    "slash": ("new/", nothing),
    "folder": ("folder.json", folder_there),
    "link": ("link.json", link_out),
    "dangling": ("link.json", dangling),
    "loop": ("link.json", link_loop),
    "below-file": ("kept.json/x.json", file_there),
    "there": ("kept.json", file_there),
    "long": ("x" * 300 + ".json", nothing),
    "no-suffix": ("words", nothing),
    "odd-suffix": ("x.wings", nothing),
    "tilde": ("~nosuch/x.json", nothing),
    "number": ("1e3", nothing),
    "null": ("null", nothing),
    "true": ("true", nothing),
    "space": ("'a b.json'", nothing),
    "hidden": (".json", nothing),
}
INPUTS = (
    *("nowhere", "nowhere.jpg", "d/*.gif", "d/**/[", "d/train/cat/0.jpg/x", "~nosuch/x.jpg", "''", "' '", "d\\x"),
    *("http://localhost/x.jpg", "a=b.jpg", "1e3", "null", "true", "[d]", "{d:1}", "'${seed}'", "com,ma"),
)
RUN_DIRS = (
    "." * 300,
    "x" * 300,
    "~nosuch/x",
    "a/../b",
    "d",
    "d/train/cat/0.jpg",
    "null",
    "1e3",
    "true",
    "'a b'",
    "a,b",
)


def case_of(name: str, place: str, make: Callable[[Path], object]) -> Case:
    def build(here: Path) -> None:
        split_tree(here / "d")
        make(here)

    return Case(f"place-{name}", build, tuple(line.format(place=place) for line in WRITERS))


def with_pipe(here: Path) -> None:
    split_tree(here / "d")
    os.mkfifo(here / "pipe.jpg")


def cases() -> list[Case]:
    places = [case_of(name, place, make) for name, (place, make) in PLACES.items()]
    inputs = [
        Case(f"input-{number}", lambda here: split_tree(here / "d"), (f"predict {text} weights={{run}} device=cpu",))
        for number, text in enumerate(INPUTS)
    ]
    short = "train model=resnet8 data=digits data.fraction=0.05 data.image_size=8 max_steps=1 epochs=1 batch_size=30"
    dirs = [
        Case(f"run-dir-{n}", lambda here: split_tree(here / "d"), (f"{short} device=cpu run.dir={text}",))
        for n, text in enumerate(RUN_DIRS)
    ]
    pipe = Case("input-pipe", with_pipe, ("predict pipe.jpg weights={run}", "predict . weights={run}"), r"pipe\.jpg")
    return [*places, *inputs, *dirs, pipe]
