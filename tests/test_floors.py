"""The floors of the package: a module imports from lower floors and from its own folder only, and torch comes in late."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "codec"
FLOORS = [  # each line may import from the lines above it
    {"errors", "program"},
    {"picture", "tiles", "metrics", "container", "planes", "entropy"},
    {"networks", "postfilter"},
    {"weights", "distortion"},
    {"walk", "adaptation", "quantiser", "hyperlatents"},
    {"lossy", "lossless"},
    {"refine"},
    {"rate_control"},
    {"api"},
    {"pillow_plugin", "numcodecs_plugin"},
    {"evaluation", "training"},
    {"cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
WITHOUT_TORCH = {"errors", "picture", "tiles", "metrics", "container", "planes", "entropy", "api", "program", "cli"}
WITHOUT_TORCH |= {"pillow_plugin", "numcodecs_plugin"}
FACADE = ("__init__", "__main__")  # the package itself: api and errors; __main__: cli

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if "__pycache__" not in path.parts
}


def imports(path: Path) -> set[tuple[str, ...]]:
    """Absolute names of the imported modules, split at dots; those inside functions too."""
    here = ("codec", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            # `from . import x` names modules, `from .x import y` names things in one.
            found |= {base + (alias.name,) for alias in node.names} if base in (("codec",), here[:-1]) else {base}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_lower_floors_and_its_own_folder_only(name):
    top = name.split(".")[0]
    if top in FACADE:
        return
    assert top in FLOOR, f"codec/{top} stands on no floor: add it to FLOORS"
    for target in imports(MODULES[name]):
        if target[0] != "codec" or len(target) == 1:
            continue
        other = target[1]
        if other == top or other not in FLOOR:  # a name of the package itself, such as __version__
            continue
        assert FLOOR[other] < FLOOR[top], f"codec.{name} imports codec.{other}, which is not below it"


def test_no_files_import_one_another_in_a_circle():
    """Below evaluation and training, each of which has one left."""
    files = {name for name in MODULES if name.split(".")[0] not in ("evaluation", "training")}
    below = {name: {".".join(target[1:]) for target in imports(MODULES[name])} & files for name in files}
    while ground := [name for name, targets in below.items() if not targets & set(below)]:
        for name in ground:
            del below[name]
    assert not below


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] in WITHOUT_TORCH])
def test_bytes_and_people_do_not_import_torch(name):
    assert not {target for target in imports(MODULES[name]) if target[0] == "torch"}


def test_the_package_itself_imports_only_the_facade_and_the_errors():
    imported = {target[1] for target in imports(MODULES["__init__"]) if target[0] == "codec"}
    assert imported <= {"api", "errors", "pillow_plugin"}


def test_no_module_is_a_drawer():
    drawers = {"utils", "util", "common", "helpers", "types", "io", "misc", "codecs"}
    assert not {name for name in MODULES if drawers & set(name.split("."))}
