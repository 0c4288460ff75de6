"""Folders of images as people have them, and the commands that read a data set."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import Case, Random
from tests.helpers.data import class_tree, picture

SMALL = "data.image_size=16 device=cpu precision=fp32"
NEW = f"model=resnet8 data=folder data.root=d epochs=1 batch_size=4 {SMALL} data.workers=0"
EXAMINE = "doctor data data=folder data.root=d weights={run} data.workers=0 device=cpu"
JUDGE = "evaluate weights={run} data=folder data.root=d data.workers=0 device=cpu"
READERS = (
    f"train {NEW} resume=never",
    f"doctor config {NEW}",
    EXAMINE,
    f"finetune weights={{run}} data=folder data.root=d transfer=head epochs=1 batch_size=4 {SMALL} data.workers=0",
    JUDGE,
    "prepare data=folder data.root=d out=packed",
    f"visualize what=batch model=resnet8 data=folder data.root=d {SMALL}",
)
SPLITS = {"train": 3, "val": 2}
ANIMALS = ("cat", "dog", "fox")


def split_tree(root: Path, splits: dict[str, int] = SPLITS, classes: tuple[str, ...] = ANIMALS) -> Path:
    """ROOT/SPLIT/CLASS/0.jpg ...: so many pictures of each class in each split, no two alike."""
    for number, (split, count) in enumerate(splits.items()):
        class_tree(root / split, dict.fromkeys(classes, count), seed=number)
    return root


def splits_called(train: str, val: str) -> Callable[[Path], object]:
    return lambda here: split_tree(here / "d", {train: 3, val: 2})


def with_more(add: Callable[[Path], object]) -> Callable[[Path], object]:
    """A good tree, and something else in it."""

    def build(here: Path) -> None:
        add(split_tree(here / "d"))

    return build


def nested(here: Path) -> None:
    for split, count in SPLITS.items():
        for animal in ANIMALS:
            class_tree(here / "d" / animal, {split: count}, seed=ord(animal[0]))


def flat(here: Path) -> None:
    (here / "d").mkdir()
    for number in range(6):
        picture(number).save(here / "d" / f"cat.{number}.jpg")


def flat_with_csv(here: Path) -> None:
    flat(here)
    (here / "d" / "labels.csv").write_text("file,label\n" + "".join(f"cat.{n}.jpg,{n % 2}\n" for n in range(6)))


def images_and_masks(here: Path) -> None:
    for part in ("images", "masks"):
        for split in SPLITS:
            (here / "d" / part / split).mkdir(parents=True)
            picture(1).save(here / "d" / part / split / "1.png")


def empty_class(root: Path) -> None:
    (root / "train" / "owl").mkdir()
    (root / "val" / "owl").mkdir()


def only_train_has(root: Path) -> None:
    class_tree(root / "train", {"owl": 2}, seed=7)


def only_val_has(root: Path) -> None:
    class_tree(root / "val", {"owl": 2}, seed=7)


def other_words(root: Path, *names: str) -> None:
    for folder in root.glob("*/cat"):
        for name in names:
            (folder / name).write_bytes(b"not an image")


def loop_of_links(root: Path) -> None:
    (root / "train" / "cat" / "again").symlink_to(root / "train", target_is_directory=True)


def link_to_itself(root: Path) -> None:
    (root / "train" / "cat" / "self.jpg").symlink_to(root / "train" / "cat" / "self.jpg")


def broken_link(root: Path) -> None:
    (root / "train" / "cat" / "gone.jpg").symlink_to(root / "nowhere.jpg")


def pipe(root: Path) -> None:
    os.mkfifo(root / "train" / "cat" / "pipe.jpg")


def folder_called_jpg(root: Path) -> None:
    (root / "train" / "cat" / "folder.jpg").mkdir()


def thumbnails(root: Path) -> None:
    for name in ("@eaDir", "__MACOSX", ".thumbnails", ".ipynb_checkpoints", "$RECYCLE.BIN"):
        class_tree(root / "train" / name, {"deep": 1}, seed=9)
        class_tree(root / "train" / "cat" / name, {"deep": 1}, seed=9)


def normal_forms(root: Path) -> None:
    class_tree(root / "train", {"caf\u00e9": 3}, seed=5)
    class_tree(root / "val", {"cafe\u0301": 2}, seed=6)


def two_that_look_alike(root: Path) -> None:
    for split in SPLITS:
        class_tree(root / split, {"caf\u00e9": 2, "cafe\u0301": 2}, seed=5)


def one_class(here: Path) -> None:
    split_tree(here / "d", classes=("cat",))


def nothing(here: Path) -> None:
    (here / "d").mkdir()


def a_file(here: Path) -> None:
    (here / "d").write_text("no folder")


def missing(here: Path) -> None:
    pass


def archive_beside(here: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "images.zip").write_bytes(b"PK\x03\x04")


def one_deeper(here: Path) -> None:
    split_tree(here / "d" / "dataset")


def two_deeper(here: Path) -> None:
    split_tree(here / "d" / "my" / "dataset")


def yolo(here: Path) -> None:
    for part, suffix in (("images", "jpg"), ("labels", "txt")):
        for split in SPLITS:
            folder = here / "d" / part / split
            folder.mkdir(parents=True)
            if suffix == "jpg":
                picture(3).save(folder / "1.jpg")
            else:
                (folder / "1.txt").write_text("0 .5 .5 .1 .1\n")


SEEN = "d"  # a refusal names what was seen
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nested": (nested, "train"),
    "flat": (flat, "class"),
    "flat-csv": (flat_with_csv, "csv"),
    "masks": (images_and_masks, "images"),
    "yolo": (yolo, "images"),
    "empty-class": (with_more(empty_class), "owl"),
    "only-train": (with_more(only_train_has), "owl"),
    "only-val": (with_more(only_val_has), "owl"),
    "one-class": (one_class, "one class"),
    "nothing": (nothing, SEEN),
    "file": (a_file, SEEN),
    "missing": (missing, SEEN),
    "archive": (archive_beside, SEEN),
    "deeper": (one_deeper, "dataset"),
    "two-deeper": (two_deeper, SEEN),
    "alike": (with_more(two_that_look_alike), "caf"),
    "two-trains": (lambda here: split_tree(here / "d", {"Train": 2, "training": 2, "val": 2}), "train"),
}
DIVIDED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no-val": (lambda here: split_tree(here / "d", {"train": 3}), "not divided"),
}
READ: dict[str, tuple[Callable[[Path], object], str]] = {
    "plain": (lambda here: split_tree(here / "d"), ""),
    **{
        f"{train}-{val}": (splits_called(train, val), "")
        for train, val in [("training", "validation"), ("Train", "Val"), ("TRAIN", "TEST"), ("train", "dev"),
                           ("Training", "Testing"), ("train_set", "test_set"), ("train", "valid")]
    },
    "three": (lambda here: split_tree(here / "d", {**SPLITS, "test": 1}), "test"),
    "heic": (with_more(lambda root: other_words(root, "a.HEIC", "b.heic")), r"heic"),
    "text": (with_more(lambda root: other_words(root, "Thumbs.db", "notes.txt", "x.csv")), r"\.txt"),
    "no-suffix": (with_more(lambda root: other_words(root, "README")), "README|no suffix|without"),
    "raw": (with_more(lambda root: other_words(root, "a.NEF", "b.dng", "c.cr2")), r"nef"),
    "loop": (with_more(loop_of_links), "link|again"),
    "thumbnails": (with_more(thumbnails), ""),
}  # fmt: skip
ODD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "link-to-itself": (with_more(link_to_itself), r"self\.jpg"),
    "broken-link": (with_more(broken_link), r"gone\.jpg"),
    "pipe": (with_more(pipe), r"pipe\.jpg"),
    "folder-jpg": (with_more(folder_called_jpg), ""),
    "normal-forms": (with_more(normal_forms), ""),  # one class more than the trained net has
}
ENOUGH_TO_JUDGE = {"no-val": "given images|images that can be read", "one-class": "the 1 of folder|two classes"}
# What lies beside the images was said when the net was trained on them.
QUIET = {"evaluate": "", "visualize": ""}


def cases() -> list[Case]:
    lenient = (EXAMINE, JUDGE)  # to be examined or judged, images need no split, and one class is enough
    trainers = tuple(line for line in READERS if line not in lenient)
    refused = [Case(f"refused-{name}", build, trainers if name in ENOUGH_TO_JUDGE else READERS, says, code=2)
               for name, (build, says) in REFUSED.items()]  # fmt: skip
    refused += [Case(f"judged-{name}", (REFUSED | DIVIDED)[name][0], lenient, says)
                for name, says in ENOUGH_TO_JUDGE.items()]  # fmt: skip
    divided = [Case(f"divided-{name}", build, trainers, says, code=0, only=QUIET)
               for name, (build, says) in DIVIDED.items()]  # fmt: skip
    read = [Case(f"read-{name}", build, READERS, says, code=0, only=QUIET) for name, (build, says) in READ.items()]
    odd = [Case(f"odd-{name}", build, READERS, says, only=QUIET) for name, (build, says) in ODD_FILES.items()]
    return [*refused, *divided, *read, *odd]


PARTS = ("train", "Train", "val", "VALIDATION", "test", "cat", "dog", "Cat", "@eaDir", "images", "labels", ".git", "0",
         "caf\u00e9", "x.jpg", "a b")  # fmt: skip
ENDS = ("a.jpg", "b.PNG", "c.heic", "d.txt", "e", ".f.jpg", "g.jpeg.part", "h.csv")


def random_case(number: int) -> Case:
    """A tree of up to three levels of such folders with such files in them."""

    def build(here: Path) -> None:
        rng = Random(number)
        (here / "d").mkdir()
        for index in range(rng.randint(1, 14)):
            folder = here / "d" / Path(*(rng.choice(PARTS) for _ in range(rng.randint(1, 3))))
            file = folder / rng.choice(ENDS)
            if any(parent.is_file() for parent in file.parents) or file.exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            picture(index).save(file, "JPEG")

    return Case(f"random-{number}", build, (Random(number).choice(READERS),))
