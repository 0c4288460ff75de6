"""Label files of boxes: Pascal VOC's XML, COCO's JSON, YOLO's text, tables in CSV. Each box knows where it was read."""

import csv
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cnnbench.data.boxes import CROWD, DIFFICULT, PLAIN
from cnnbench.utils import plain_yaml
from cnnbench.utils.errors import UserError
from cnnbench.utils.format import some

COLUMNS = {  # of a CSV, by the names that people give them
    "image": ("image", "file", "filename", "file_name", "path", "image_path", "img"),
    "class": ("class", "label", "name", "class_name", "category", "cell_type"),
    "left": ("xmin", "x1", "left", "x_min"),
    "top": ("ymin", "y1", "top", "y_min"),
    "right": ("xmax", "x2", "right", "x_max"),
    "bottom": ("ymax", "y2", "bottom", "y_max"),
}


@dataclass(frozen=True)
class Box:
    """Box of a label file: corners in pixels, from the image's upper left corner on."""

    name: str  # of its class
    corners: tuple[float, float, float, float]  # left, top, right, bottom
    where: str  # file and line
    kind: int = PLAIN
    area: float | None = None  # of the object, where the file says it; else that of the box
    fault: str = ""  # why it cannot be used


@dataclass(frozen=True)
class Labels:
    """Boxes of an image, by its path."""

    image: str
    boxes: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None  # width and height, as the label file says
    relative: bool = False  # whether coordinates are parts of the width and height
    fault: str = ""  # why the image cannot be used


# Pascal VOC


def read_voc(xml: Path, image: str) -> Labels:
    """Labels of one XML file. VOC counts pixels from 1, and a box's last pixel belongs to it."""
    try:
        text = xml.read_text(encoding="utf-8", errors="replace")
        root = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        return Labels(image, fault=f"'{xml}' cannot be read: {getattr(error, 'strerror', None) or error}")
    lines = [text.count("\n", 0, found.start()) + 1 for found in re.finditer(r"<object\b", text)]
    boxes = [_voc_box(one, f"'{xml}', line {line}") for one, line in zip(root.iter("object"), lines, strict=False)]
    size = [_number(root.findtext(f"size/{side}")) for side in ("width", "height")]
    told = (int(size[0]), int(size[1])) if size[0] and size[1] else None
    return Labels(image, boxes, told)


def _voc_box(one: ElementTree.Element, where: str) -> Box:
    found = [_number(one.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    name = (one.findtext("name") or "").strip()
    left, top, right, bottom = (value or 0.0 for value in found)
    kind = DIFFICULT if _number(one.findtext("difficult")) else PLAIN
    fault = "it has no name" if not name else "a corner is no number" if None in found else ""
    flat = right == left or bottom == top  # one pixel wide in VOC's way of counting; people who write that mean none
    corners = (left, top, right, bottom) if flat else (left - 1, top - 1, right, bottom)
    return Box(name, corners, where, kind, fault=fault)


# COCO


def read_coco(file: Path, folders: Sequence[Path]) -> tuple[list[Labels], dict[str, int]]:
    """Labels of each image of a JSON file, and the numbers of its categories by name. UserError where it is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        images = {one["id"]: one for one in content["images"]}
        boxes: dict[Any, list[Box]] = {}
        for one in content["annotations"]:
            boxes.setdefault(one["image_id"], []).append(_coco_box(one, names, file))
        labels = [_coco_image(one, boxes.pop(key, []), folders) for key, one in images.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise UserError(f"'{file}' is no COCO file of boxes: {missing}") from None
    labels += [Labels("", found, fault=f"{found[0].where}: no image has the id {key}") for key, found in boxes.items()]
    return labels, {name: number for number, name in names.items()}


def _coco_image(one: dict[str, Any], boxes: list[Box], folders: Sequence[Path]) -> Labels:
    path = next((path for folder in folders if (path := folder / one["file_name"]).is_file()), None)
    size = (int(one["width"]), int(one["height"])) if "width" in one and "height" in one else None
    fault = "" if path else f"there is no image '{folders[0] / one['file_name']}'"
    return Labels(str(path or one["file_name"]), boxes, size, fault=fault)


def _coco_box(one: dict[str, Any], names: dict[int, str], file: Path) -> Box:
    left, top, width, height = map(float, one["bbox"])
    name = names.get(one["category_id"], "")
    fault = "" if name else f"the category {one['category_id']} is none of the file's"
    kind = CROWD if one.get("iscrowd") else PLAIN
    where = f"'{file}', annotation {one.get('id', '?')}"
    return Box(name, (left, top, left + width, top + height), where, kind, one.get("area"), fault)


# YOLO


def read_yolo(text: Path, image: str, names: Sequence[str]) -> Labels:
    """Labels of a text file with `class x y width height` in each line, all relative, x and y of the centre."""
    try:
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return Labels(image, fault=f"'{text}' cannot be read: {error.strerror}")
    boxes = [
        _yolo_box(line.split(), names, f"'{text}', line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return Labels(image, boxes, relative=True)


def _yolo_box(values: list[str], names: Sequence[str], where: str) -> Box:
    nowhere = (0.0, 0.0, 0.0, 0.0)
    if len(values) != 5:
        return Box("", nowhere, where, fault=f"it has {len(values)} values, not a class and four numbers")
    numbers = [_number(value) for value in values]
    if None in numbers:
        return Box("", nowhere, where, fault=f"'{values[numbers.index(None)]}' is no number")
    index, x, y, width, height = (value or 0.0 for value in numbers)
    if not index.is_integer() or not 0 <= index < len(names):
        begun = "; the first class is 0, not 1" if index == len(names) else ""
        return Box("", nowhere, where, fault=f"its class is {values[0]}, but the classes are 0 to "
                   f"{len(names) - 1}{begun}")  # fmt: skip
    if max(x, y, width, height) > 1.5:
        return Box("", nowhere, where, fault="its numbers are pixels, but this format's are parts of the image's width "
                   "and height, 0 to 1")  # fmt: skip
    return Box(names[int(index)], (x - width / 2, y - height / 2, x + width / 2, y + height / 2), where)


def yolo_names(root: Path) -> list[str]:
    """Names of the classes: of ROOT/classes.txt, or `names` of a YAML file there. UserError where there is neither."""
    if (root / "classes.txt").is_file():
        return [line.strip() for line in (root / "classes.txt").read_text().splitlines() if line.strip()]
    names: Any = None
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        with suppress(OSError, plain_yaml.NotPlainError, AttributeError):
            names = plain_yaml.load(file).get("names")
        if names:
            return [str(name) for name in (names.values() if isinstance(names, dict) else names)]
    raise UserError(f"the classes have no names: write them into '{root / 'classes.txt'}', one in each line")


# CSV


def read_csv(file: Path, folders: Sequence[Path]) -> list[Labels]:
    """Labels of each image of a table with a box in each row. UserError where columns are missing."""
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        reader = csv.DictReader(lines)
        columns = _columns(file, list(reader.fieldnames or []))
        rows = [({key: (row[name] or "").strip() for key, name in columns.items()}, reader.line_num) for row in reader]
    found: dict[str, list[Box]] = {}
    for row, line in rows:
        own = found.setdefault(row["image"], [])
        if any(row[side] for side in ("left", "top", "right", "bottom")):  # a row without corners: no box in the image
            own.append(_csv_box(row, f"'{file}', line {line}"))
    relative = _relative(found)
    return [_csv_image(name, boxes, folders, relative) for name, boxes in found.items()]


def _csv_image(name: str, boxes: list[Box], folders: Sequence[Path], relative: bool) -> Labels:
    path = next((path for folder in folders if (path := folder / name).is_file()), None)
    where = boxes[0].where if boxes else "a row"
    return Labels(str(path or name), boxes, relative=relative,
                  fault="" if path else f"{where}: there is no image '{folders[0] / name}'")  # fmt: skip


def _columns(file: Path, header: list[str]) -> dict[str, str]:
    """Name in the file of each column. UserError for one that is missing."""
    known = {name.strip().lower(): name for name in header}
    found = {key: next((known[name] for name in names if name in known), None) for key, names in COLUMNS.items()}
    if missing := [key for key, name in found.items() if name is None]:
        said = ", ".join(f"{key} ({'/'.join(COLUMNS[key][:2])})" for key in missing)
        raise UserError(f"'{file}' has no column {said}; its first line names {some(header, 8) or 'none'}")
    return {key: name for key, name in found.items() if name is not None}


def _csv_box(row: dict[str, str], where: str) -> Box:
    numbers = [_number(row[side]) for side in ("left", "top", "right", "bottom")]
    left, top, right, bottom = (value or 0.0 for value in numbers)
    fault = "it has no class" if not row["class"] else "a corner is no number" if None in numbers else ""
    return Box(row["class"], (left, top, right, bottom), where, fault=fault)


def _relative(found: dict[str, list[Box]]) -> bool:
    """Whether a table's coordinates are relative: most are at most 1. The others get a fault."""
    small = {id(box): max(box.corners) <= 1 for boxes in found.values() for box in boxes}
    relative = 2 * sum(small.values()) > len(small)
    most = "parts of the width and height" if relative else "pixels"
    for boxes in found.values():
        boxes[:] = [
            replace(box, fault=f"its corners are {', '.join(f'{value:g}' for value in box.corners)}, but most of the "
                    f"file's are {most}") if small[id(box)] != relative and not box.fault else box
            for box in boxes
        ]  # fmt: skip
    return relative


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e9 else None
