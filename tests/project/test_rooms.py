"""The floor plan: an import points down a level, or stays in its own room."""

import ast
from pathlib import Path

import cnnbench

PACKAGE = Path(cnnbench.__file__).parent
LEVELS = (
    {"utils"},
    {"config", "models"},
    {"runtime", "data", "output"},
    {"analysis", "weights"},
    {"tasks"},
    {"runs"},
    {"training", "export", "sweeps"},
    {"transfer", "benchmark", "doctor", "cli"},
    {"visual", "reporting"},
    {"commands"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def imports(file: Path) -> set[str]:
    """Rooms that a file imports from, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "cnnbench":
            names |= {f"cnnbench.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("cnnbench.")} & LEVEL.keys()


def test_every_file_has_a_room() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__", "conf", "zoo"} == LEVEL.keys()
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_no_import_points_up() -> None:
    up = [
        f"{file.relative_to(PACKAGE)} imports {other}"
        for file in PACKAGE.glob("*/**/*.py")
        for room in [file.relative_to(PACKAGE).parts[0]]
        for other in imports(file)
        if other != room and LEVEL[other] >= LEVEL[room]
    ]
    assert not up, "\n".join(sorted(up))
