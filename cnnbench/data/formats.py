"""Formats of image files that are read, by their contents; in folders files are found by these formats' suffixes."""

from functools import cache

# Pillow reads more formats. It runs an interpreter for one of them (EPS), and knows some by their names alone (TGA).
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # Pillow opens MPO, the pairs of some cameras, as JPEG
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "QOI": (".qoi",),
    "ICO": (".ico",),
    "PCX": (".pcx",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
}
OPTIONAL = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}  # parts that a Pillow may lack
HEIC = (".heic", ".heif", ".hif")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC_REMEDY = "HEIC is not read: convert such images, as with `heif-convert a.heic a.jpg` or `magick a.heic a.jpg`"


@cache
def readable_formats() -> tuple[str, ...]:
    """Names of the formats that the installed Pillow reads."""
    import warnings

    from PIL import features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older Pillow does not know the name of the feature
        return tuple(name for name in SUFFIXES if name not in OPTIONAL or features.check(OPTIONAL[name]))


@cache
def image_suffixes() -> tuple[str, ...]:
    """Suffixes of the readable formats, in small letters."""
    return tuple(suffix for name in readable_formats() for suffix in SUFFIXES[name])


def is_image(name: str) -> bool:
    """Whether a file is an image that is read, by its name."""
    return name.lower().endswith(image_suffixes()) and name[0] != "."


def is_heic(start: bytes) -> bool:
    """Whether a file that starts so is HEIC, whatever its name."""
    return start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS
