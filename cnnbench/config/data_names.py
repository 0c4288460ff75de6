"""Names of data, in titles, tables and names of folders."""

from pathlib import Path

FOLDERS = ("boxes", "folder", "images", "masks", "people", "sounds")  # of the user's own
FILES = ("list", "sounds", "arrays")


def as_chosen(name: str, source: str | None) -> str:
    """What chooses the data on a command line, behind `data=`."""
    return f"{source} data.name={name}" if source else name


def data_name(name: str, root: object = None, file: object = None) -> str:
    """Name of the user's own folder or file, where the data are in one; else that of the data set."""
    if file and name in FILES:
        return Path(str(file)).stem
    own = Path(str(root)).absolute().name if root and name in FOLDERS else ""
    return own or name
