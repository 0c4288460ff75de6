"""Single images of every mode, depth, format and name, and files that only seem to be images."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.corpus.case import Case, Random
from tests.corpus.layouts import NEW, split_tree
from tests.helpers.data import picture

PREDICT = "predict odd weights={run} device=cpu"
TRAIN = f"train {NEW} resume=never data.on_error=skip"
PACK = "prepare data=folder data.root=d out=packed data.on_error=skip"
Writer = Callable[[Path], object]


def saved(mode: str, format: str, **options: object) -> Writer:
    return lambda file: picture().convert(mode).save(file, format, **options)


def gray(kind: str, mode: str, low: float = 0.0, high: float = 255.0) -> Writer:
    """Noise in one channel, with values from low to high."""

    def write(file: Path) -> None:
        values = np.random.default_rng(0).uniform(low, high, (30, 40)).astype(kind)
        Image.fromarray(values).save(file, mode)

    return write


def content(text: bytes) -> Writer:
    return lambda file: file.write_bytes(text)


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    picture().save(stream, "JPEG", **options)
    return stream.getvalue()


def not_finite(file: Path) -> None:
    Image.fromarray(np.full((30, 40), np.nan, np.float32)).save(file, "TIFF")


def with_orientation(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(file, "JPEG", exif=exif)


def huge_header(file: Path) -> None:
    """A PNG of 60,000 by 60,000 pixels, as its header says."""
    good = io.BytesIO()
    picture().save(good, "PNG")
    text = bytearray(good.getvalue())
    text[16:24] = struct.pack(">II", 60_000, 60_000)
    file.write_bytes(bytes(text))


def frames(format: str) -> Writer:
    return lambda file: picture().save(file, format, save_all=True, append_images=[picture(1), picture(2)])


def sized(width: int, height: int) -> Writer:
    return lambda file: Image.new("RGB", (width, height), (200, 30, 60)).save(file)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
READ: dict[str, tuple[str, Writer]] = {
    **{f"png-{mode}": ("png", saved(mode, "PNG")) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"tiff-{mode}": ("tif", saved(mode, "TIFF")) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK")},
    **{f"jpeg-{mode}": ("jpg", saved(mode, "JPEG")) for mode in ("L", "RGB", "CMYK")},
    "jpeg-progressive": ("jpeg", saved("RGB", "JPEG", progressive=True)),
    "jpeg-444": ("jpg", saved("RGB", "JPEG", subsampling=0)),
    "jpeg-named-png": ("png", saved("RGB", "JPEG")),
    "png-named-jpg": ("jpg", saved("RGBA", "PNG")),
    "capitals": ("JPG", saved("RGB", "JPEG")),
    "webp": ("webp", saved("RGB", "WEBP")),
    "webp-alpha": ("webp", saved("RGBA", "WEBP", lossless=True)),
    "gif": ("gif", saved("P", "GIF")),
    "gif-animated": ("gif", frames("GIF")),
    "tiff-pages": ("tiff", frames("TIFF")),
    "apng": ("png", frames("PNG")),
    "bmp": ("bmp", saved("RGB", "BMP")),
    "bmp-1": ("bmp", saved("1", "BMP")),
    "ppm": ("ppm", saved("RGB", "PPM")),
    "pgm": ("pgm", saved("L", "PPM")),
    "exif": ("jpg", with_orientation),
    "jpeg-tail": ("jpg", content(jpeg() + b"\0garbage" * 9)),
    "narrow": ("png", sized(1, 300)),
    "wide": ("png", sized(300, 1)),
    "pixel": ("png", sized(1, 1)),
    "jfif": ("jfif", content(jpeg())),
}
# A rule brings their values to 8 bits, or they are refused by name: never black in silence.
DEEP: dict[str, tuple[str, Writer]] = {
    "png-16": ("png", gray("uint16", "PNG", 0, 65535)),
    "tiff-16": ("tif", gray("uint16", "TIFF", 0, 65535)),
    "tiff-32": ("tif", gray("int32", "TIFF", 0, 2**31 - 1)),
    "tiff-float-1": ("tif", gray("float32", "TIFF", 0, 1)),
    "tiff-float-255": ("tif", gray("float32", "TIFF", 0, 255)),
    "tiff-float-signed": ("tif", gray("float32", "TIFF", -3, 3)),
    "tiff-float-4000": ("tif", gray("float32", "TIFF", 0, 4000)),
    "tiff-lab": ("tif", saved("LAB", "TIFF")),
    "tiff-ycbcr": ("tif", saved("YCbCr", "TIFF")),
}
REFUSED: dict[str, tuple[str, Writer]] = {
    "empty": ("jpg", content(b"")),
    "text": ("jpg", content(b"hello")),
    "html": ("jpg", content(b"<!DOCTYPE html><html></html>")),
    "lfs": ("png", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")),
    "svg": ("png", content(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
    "pdf": ("jpg", content(b"%PDF-1.7\n")),
    "zip": ("jpg", content(b"PK\x03\x04" + b"\0" * 50)),
    "zeros": ("jpg", content(b"\0" * 1000)),
    "cut": ("jpg", content(jpeg()[:200])),
    "heic-named-jpg": ("jpg", content(HEIC)),
    "huge": ("png", huge_header),
    "nan": ("tif", not_finite),
    "exe": ("png", content(b"MZ" + b"\0" * 200)),
    "numpy": ("png", content(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}")),
}
UNKNOWN = {"heic": HEIC, "HEIC": HEIC, "nef": b"MM\0*", "mp4": b"\0\0\0\x18ftypmp42", "txt": b"words",
           "npy": b"\x93NUMPY",
           "svg": b"<svg/>", "json": b"{}", "jpg_": jpeg(), "JPG.part": jpeg()}  # fmt: skip
NAMES = {
    "space": "a b c.jpg", "equals": "a=b.jpg", "dash": "-rf.jpg", "quote": "it's \"it\".jpg", "comma": "a,b.jpg",
    "brackets": "[a].jpg", "braces": "{a:b}.jpg", "dollar": "${seed}.jpg", "star": "a*b.jpg", "newline": "a\nb.jpg",
    "escape": "\x1b[2Jgone\x1b]0;owned\x07.jpg", "bidi": "\u202egpj.exe.jpg", "latin": "caf\udce9.jpg",
    "long": "x" * 250 + ".jpg", "unicode": "\U0001f98a.jpg", "nfd": "cafe\u0301.jpg", "formula": "=1+1.jpg",
    "backslash": "b\\s.jpg", "percent": "%s%d.jpg", "hash": "#1.jpg", "tilde": "~x.jpg", "tab": "a\tb.jpg",
    "plus": "+1.jpg", "at": "@x.jpg", "number": "1e3.jpg", "null": "null.jpg",
}  # fmt: skip


def odd_one(suffix: str, write: Writer) -> Callable[[Path], object]:
    """The file alone in a folder, and among good ones in a class."""

    def build(here: Path) -> None:
        (here / "odd").mkdir()
        write(here / "odd" / f"odd.{suffix}")
        write(split_tree(here / "d") / "train" / "cat" / f"odd.{suffix}")

    return build


def named(name: str) -> Callable[[Path], object]:
    def build(here: Path) -> None:
        (here / "odd").mkdir()
        (here / "odd" / name).write_bytes(jpeg())
        (split_tree(here / "d") / "train" / "cat" / name).write_bytes(jpeg())

    return build


def class_named(name: str) -> Callable[[Path], object]:
    return lambda here: split_tree(here / "d", classes=("cat", "dog", name))


LINES = (PREDICT, TRAIN, PACK)
PICTURE = "visualize what=gradcam weights={run} images=odd device=cpu"
CLASSES = {key: name.removesuffix(".jpg") for key, name in NAMES.items()}


def cases() -> list[Case]:
    read = [Case(f"image-{name}", odd_one(*kind), (*LINES, PICTURE), code=0) for name, kind in READ.items()]
    deep = [Case(f"deep-{name}", odd_one(*kind), LINES) for name, kind in DEEP.items()]
    refused = [Case(f"no-image-{name}", odd_one(*kind), LINES, r"odd\.|skipped") for name, kind in REFUSED.items()]
    unknown = [
        Case(
            f"suffix-{suffix}", odd_one(suffix, content(text)), LINES, rf"{suffix.rpartition('.')[2]}\b|without suffix"
        )
        for suffix, text in UNKNOWN.items()
    ]
    names = [Case(f"name-{name}", named(file), LINES, code=0) for name, file in NAMES.items()]
    classes = [Case(f"class-{name}", class_named(text), (TRAIN, PACK), code=0) for name, text in CLASSES.items()]
    return [*read, *deep, *refused, *unknown, *names, *classes]


def random_case(number: int) -> Case:
    """A good image with some of its bytes changed, under one of the names."""
    rng = Random(number)
    suffix, write = rng.choice([*READ.values(), *DEEP.values()])

    def damaged(file: Path) -> None:
        write(file)
        text = bytearray(file.read_bytes())
        for _ in range(rng.randint(1, 20)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        file.write_bytes(bytes(text[: rng.randint(1, 2 * len(text))]))

    return Case(f"image-random-{number}", odd_one(suffix, damaged), (Random(number).choice(LINES),))
