"""What a command's schema says of its keys: which there are, what they are for, which take text or bare arguments."""

from dataclasses import Field, fields, is_dataclass


def unread_sections(schema: type) -> list[str]:
    """Sections that a command accepts since a net's file sets them, but does not use."""
    return [item.name for item in fields(schema) if "unread" in item.metadata]


def bare_key(schema: type) -> str | None:
    """Key that takes the arguments without `=`; None where the command takes no such arguments."""
    return next((item.name for item in fields(schema) if "bare" in item.metadata), None)


def text_keys(schema: type, prefix: str = "") -> set[str]:
    """Keys of a schema whose values are text."""
    found: set[str] = set()
    for item in fields(schema):
        if isinstance(item.type, type) and is_dataclass(item.type):
            found |= text_keys(item.type, f"{prefix}{item.name}.")
        elif item.type in (str, str | None):
            found.add(f"{prefix}{item.name}")
    return found


def help_texts(schema: type, prefix: str = "") -> dict[str, str]:
    """Explanation of every key of a schema, in the order of the schema."""
    texts: dict[str, str] = {}
    for item in fields(schema):
        if item.name in unread_sections(schema):
            continue
        if isinstance(item.type, type) and is_dataclass(item.type):
            texts |= help_texts(item.type, f"{prefix}{item.name}.")
        else:
            texts[f"{prefix}{item.name}"] = item.metadata["help"]
    return texts


def leaves(schema: type, prefix: str = "") -> dict[str, Field]:
    """Each key of a schema that holds a value, by its whole name."""
    found: dict[str, Field] = {}
    for item in fields(schema):
        if isinstance(item.type, type) and is_dataclass(item.type):
            found |= leaves(item.type, f"{prefix}{item.name}.")
        else:
            found[f"{prefix}{item.name}"] = item
    return found
