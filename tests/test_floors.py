"""The floors of the package: a module imports from lower floors and from its own folder only, and torch comes in late."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "codec"
FLOORS = [  # each line may import from the lines above it
    {"errors", "program"},
    {"picture", "tiles", "metrics", "container", "planes", "entropy"},
    {"networks", "postfilter", "request"},
    {"tables", "distortion"},
    {"weights"},
    {"freeze", "walk", "adaptation", "quantiser", "hyperlatents", "step"},
    {"lossy", "lossless"},
    {"refine"},
    {"rate_control"},
    {"api"},
    {"pillow_plugin", "numcodecs_plugin"},
    {"evaluation", "training"},
    {"cli"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
WITHOUT_TORCH = {"errors", "picture", "tiles", "metrics", "container", "planes", "entropy", "request", "step", "api", "program", "cli"}
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


def imported(path: Path) -> set[str]:
    """What a file imports of MODULES, when it is run or when one of its functions is; not what is for type checkers alone."""
    package = ("codec", *path.relative_to(PACKAGE).parent.parts)
    found, left = set(), [ast.parse(path.read_text("utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            left += node.orelse
            continue
        left += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [base + (alias.name,) for alias in node.names]
            names = [name if ".".join(name[1:]) in MODULES else base for name in names]
        else:
            continue
        inside = {".".join(name[1:]) for name in names if name[0] == "codec"}
        found |= {name if name in MODULES else f"{name}.__init__".lstrip(".") for name in inside}
    return found


def test_no_file_imports_itself_by_way_of_others():
    below = {name: imported(path) for name, path in MODULES.items()}
    assert set().union(*below.values()) <= set(MODULES)  # every import was understood
    while ends := set(below) - set().union(*below.values()) | {name for name in below if not below[name]}:
        below = {name: targets - ends for name, targets in below.items() if name not in ends}
    assert not below, "these import one another in a circle"


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] in WITHOUT_TORCH])
def test_bytes_and_people_do_not_import_torch(name):
    assert not {target for target in imports(MODULES[name]) if target[0] == "torch"}


def test_the_package_itself_imports_only_the_facade_and_the_errors():
    imported = {target[1] for target in imports(MODULES["__init__"]) if target[0] == "codec"}
    assert imported <= {"api", "errors", "pillow_plugin"}


def test_no_module_is_a_drawer():
    drawers = {"utils", "util", "common", "helpers", "types", "io", "misc", "codecs"}
    assert not {name for name in MODULES if drawers & set(name.split("."))}
