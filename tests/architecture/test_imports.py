"""The house as it was drawn: which room may import which, and how large a piece may grow.

The rooms and their arrows are described in docs/architecture.md. Every test names all offenders
at once. The checks read the code with `ast`, so nested imports and those under TYPE_CHECKING
count as well; the last tests show that they bite.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# room -> rooms that it may import; itself always.
ARROWS: dict[str, frozenset[str]] = {
    "domain": frozenset(),
    "telemetry": frozenset(),
    "ledger": frozenset({"domain"}),
    "actors": frozenset({"domain", "ledger"}),
    "scheduler": frozenset({"domain", "ledger"}),
    "gateways": frozenset({"domain", "ledger", "scheduler", "stubs"}),
    "station_agents": frozenset({"domain", "stubs", "telemetry"}),
    "counterparts": frozenset({"domain", "stubs"}),
}
EVERYTHING = frozenset(ARROWS) | {"centre", "stubs"}
ARROWS["centre"] = EVERYTHING
# They prove and measure the rooms; no room knows them.
OUTSIDE: dict[str, frozenset[str]] = {
    "proof": EVERYTHING,
    "tests": EVERYTHING | {"bench", "proof"},
    "bench": EVERYTHING | {"proof"},
    "deploy": EVERYTHING,
}
OURS = EVERYTHING | set(OUTSIDE)

# `domain` is pure: no I/O, no clock, no randomness, no cryptography. What is not in this list
# needs a reason; `importlib.resources` and `tomllib` read the tables that ship with it.
PURE = frozenset(
    (
        "__future__",
        "abc",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "importlib.resources",
        "itertools",
        "json",
        "math",
        "numbers",
        "operator",
        "re",
        "string",
        "struct",
        "textwrap",
        "tomllib",
        "types",
        "typing",
        "unicodedata",
    )
)
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "now", "today", "utcnow"})

# The virtual card and the factory check what the centre computed, so neither side may use the
# other's library: an error in one would agree with itself.
CENTRE_CRYPTOGRAPHY = frozenset({"cryptography", "pkcs11"})
OUTSIDE_CRYPTOGRAPHY = frozenset({"Crypto"})

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60
NO_ROOM = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})


@dataclass(frozen=True)
class Import:
    """One imported module: `module` in full (`domain.card.apdu`), where it stands."""

    module: str
    path: str
    line: int

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: imports {self.module}"


@cache
def files(*tops: str) -> tuple[str, ...]:
    """Paths from the root of all Python files under these top-level folders."""
    found = (path for top in tops for path in (ROOT / top).rglob("*.py"))
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found))


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def imports_of(code: ast.Module, path: str) -> Iterator[Import]:
    """Every module that `code`, standing at `path`, imports, wherever in the file.

    `from a import b` counts as `a.b`, since b may be a module; relative imports are resolved;
    `import_module` and `__import__` count with their literal argument, or as `?` without one.
    """
    package = Path(path).parent.parts
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, path, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else ()
            base = [*up, *([node.module] if node.module else [])]
            for name in node.names:
                yield Import(".".join([*base, name.name]), path, node.lineno)
        elif isinstance(node, ast.Call) and name_of(node) in ("import_module", "__import__"):
            match node.args:
                case [ast.Constant(value=str(module)), *_]:
                    yield Import(module, path, node.lineno)
                case _:
                    yield Import("?", path, node.lineno)


def name_of(call: ast.Call) -> str:
    """`open` of `open(...)`, `now` of `datetime.now(...)`, or nothing."""
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def imports(*tops: str) -> Iterator[Import]:
    for path in files(*tops):
        yield from imports_of(tree(path), path)


def is_within(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def may_import_ray(path: str) -> bool:
    """The composition root, and the shells around the lines: `actors/**/shell*.py`."""
    parts = Path(path).parts
    return parts[0] == "centre" or (parts[0] == "actors" and parts[-1].startswith("shell"))


def listed(offenders: Iterable[object]) -> str:
    return "\n".join(str(offender) for offender in offenders)


def test_rooms_import_only_what_their_arrows_allow() -> None:
    """No room knows another that it has no arrow to; tests and bench are known by no room."""
    offenders = [
        found
        for room, allowed in (ARROWS | OUTSIDE).items()
        for found in imports(room)
        if found.top in OURS and found.top != room and found.top not in allowed
    ]
    assert not offenders, listed(offenders)


def test_every_package_of_the_root_is_a_room() -> None:
    """A new top-level package gets its arrows here first; `proto` never becomes one."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(ARROWS) | {"stubs", "bench", "proof"}
    assert not (ROOT / "proto" / "__init__.py").exists()


def test_ray_stays_in_the_shells() -> None:
    """Lines are plain classes: `decide` runs without Ray in tests and in the simulator."""
    offenders = [
        found for found in imports(*ARROWS) if found.top == "ray" and not may_import_ray(found.path)
    ]
    assert not offenders, listed(offenders)


def test_no_room_imports_what_only_a_string_names() -> None:
    """An import whose name is computed would pass by all the other checks."""
    offenders = [found for found in imports(*ARROWS) if found.module == "?"]
    assert not offenders, listed(offenders)


def test_the_ledger_is_reached_over_odbc_only() -> None:
    """The way on one machine is the way in production: nothing imports `sqlite3`."""
    offenders = [
        found for found in imports(*ARROWS, *OUTSIDE) if is_within(found.module, ("sqlite3",))
    ]
    assert not offenders, listed(offenders)


def test_domain_is_pure() -> None:
    """`domain` imports no I/O, clock, randomness or cryptography, and calls none."""
    offenders: list[object] = [
        found
        for found in imports("domain")
        if found.top != "domain" and not is_within(found.module, PURE)
    ]
    offenders += [
        f"{path}:{node.lineno}: calls {name_of(node)}"
        for path in files("domain")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and name_of(node) in IMPURE_CALLS
    ]
    assert not offenders, listed(offenders)


def test_the_two_sides_of_a_chip_share_no_cryptography() -> None:
    """The centre computes with one library and the virtual card, the factory with another."""
    outside = ("station_agents", "counterparts")
    inside = tuple(room for room in ARROWS if room not in outside)
    offenders = [found for found in imports(*outside) if found.top in CENTRE_CRYPTOGRAPHY]
    offenders += [found for found in imports(*inside) if found.top in OUTSIDE_CRYPTOGRAPHY]
    assert not offenders, listed(offenders)


def test_every_package_says_what_lives_there() -> None:
    """Each folder with code has an `__init__.py` whose docstring says what it is for."""
    folders = sorted({Path(path).parent for path in files(*ARROWS)})
    offenders = [
        folder
        for folder in folders
        if not (ROOT / folder / "__init__.py").exists()
        or not ast.get_docstring(tree(str(folder / "__init__.py")))
    ]
    assert not offenders, listed(offenders)


def test_no_file_wants_to_be_two() -> None:
    """A file over 400 lines holds two things."""
    sizes = {
        path: len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in files(*ARROWS, *OUTSIDE)
    }
    offenders = [f"{p}: {n} lines" for p, n in sizes.items() if n > LINES_OF_A_FILE]
    assert not offenders, listed(offenders)


def long_functions(code: ast.Module, path: str) -> Iterator[str]:
    """Functions over the limit, counted from `def` to the last line, docstring included."""
    for node in ast.walk(code):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_OF_A_FUNCTION:
                yield f"{path}:{node.lineno}: {node.name} has {lines} lines"


def test_no_function_wants_to_be_two() -> None:
    """A function over 60 lines does two things."""
    offenders = [
        found for path in files(*ARROWS, *OUTSIDE) for found in long_functions(tree(path), path)
    ]
    assert not offenders, listed(offenders)


def test_nothing_lives_in_a_room_without_a_subject() -> None:
    """No utils, common, helpers, misc: a thing without a room is a sign that one is missing."""
    offenders = [
        path
        for path in files(*ARROWS, *OUTSIDE)
        if NO_ROOM & {part.lower() for part in Path(path).with_suffix("").parts}
    ]
    assert not offenders, listed(offenders)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import ledger.commit", "ledger.commit"),
        ("from ledger import commit", "ledger.commit"),
        ("def f():\n    import ray", "ray"),
        ("if TYPE_CHECKING:\n    from actors import sorting", "actors.sorting"),
        ("from . import b", "domain.card.b"),
        ("from ..places import Kind", "domain.places.Kind"),
        ("from ...ledger import commit", "ledger.commit"),
        ("importlib.import_module('sqlite3')", "sqlite3"),
        ("__import__(name)", "?"),
    ],
)
def test_an_import_is_seen_wherever_it_hides(source: str, module: str) -> None:
    """Nested, conditional, relative and called imports are all found, by their full names."""
    found = list(imports_of(ast.parse(source), "domain/card/a.py"))
    assert [one.module for one in found] == [module]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("actors/shell.py", True),
        ("actors/hsm/shell_provider.py", True),
        ("centre/floor.py", True),
        ("actors/inventory.py", False),
        ("station_agents/shell.py", False),
        ("gateways/shell.py", False),
    ],
)
def test_only_shells_of_actors_and_the_composition_root_see_ray(path: str, allowed: bool) -> None:
    """A file elsewhere does not become a shell by its name."""
    assert may_import_ray(path) is allowed


def test_a_long_function_is_seen() -> None:
    """60 lines pass, 61 do not."""
    body = "    x = 1\n"
    fits = ast.parse("def f():\n" + body * (LINES_OF_A_FUNCTION - 1))
    too_long = ast.parse("def f():\n" + body * LINES_OF_A_FUNCTION)
    assert list(long_functions(fits, "a.py")) == []
    assert list(long_functions(too_long, "a.py")) == ["a.py:1: f has 61 lines"]
