"""Measure the sizes of packages, and find uses of private names: `python -m tests.house`.

Prints a table of sizes. Fails if a file or a function is too long, if a package uses another package's
private names, or if a test patches a private name.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "furu"
TESTS = ROOT / "tests"

MOST_LINES_OF_A_FILE = 450
MOST_LINES_OF_A_FUNCTION = 60
SHORT = 30
SHARE_OF_SHORT = 0.9
# Methods and settings that users define in node classes. Because of the underscore, no field hides them.
HOOKS = {"_create", "_load", "_validate", "_dependencies", "_executor_spec_key", "_setup_signal_handlers"}
HOOKS |= {"_version", "_codec", "_retry", "_timeout_sec"}
# Private names of the standard library that have no public replacement.
FOREIGN = {"_exit", "_getframe", "_value_", "_name_", "_make", "_replace", "_fields", "_asdict"}
FOREIGN |= {"_args_from_interpreter_flags", "_xoptions"}


def modules() -> dict[str, Path]:
    """Return the path of each module of furu, by its name without the prefix `furu.`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def package(module: str) -> str:
    """Return the top-level package that contains a module."""
    return module.partition(".")[0]


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def lines(path: Path) -> int:
    """Return the number of lines in a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name of each function in a file, and its number of lines without the docstring."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            head = node.body[0]
            docstring = ast.get_docstring(node) is not None and head.end_lineno
            yield node.name, node.end_lineno - first + 1 - (docstring and docstring - head.lineno + 1)


def defined(path: Path) -> set[str]:
    """Return the private names that a module or its classes define."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)  # a name in `__slots__`
    return {name for name in names if _is_private(name)}


def public_names(path: Path) -> set[str]:
    """Return the public names that a module defines, except type variables and loggers."""
    names: set[str] = set()
    for node in parsed(path).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            made_by = getattr(node.value, "func", None)
            if getattr(made_by, "id", "") in ("TypeVar", "TypeVarTuple"):
                continue
            if getattr(made_by, "attr", "") != "getLogger":
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def foreign_members(module: str) -> set[str]:
    """Return the private names of other packages that a module imports or reads as attributes."""
    path, own = modules()[module], set[str]()
    for name, other in modules().items():
        if package(name) == package(module):
            own |= defined(other)
    used: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            used.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("furu."):
            names = {alias.name for alias in node.names if _is_private(alias.name)}
            used |= names if package((node.module or "")[5:]) != package(module) else set()
    return used - own - HOOKS - FOREIGN - {"_common"}


def patched_names(path: Path) -> set[str]:
    """Return the private names that a test file patches."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr", "patch"):
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    name = argument.value.rpartition(".")[2]
                    found |= {argument.value} if _is_private(name) and name not in HOOKS else set()
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def problems() -> Iterator[str]:
    """Yield one line for each problem."""
    for module, path in modules().items():
        if lines(path) > MOST_LINES_OF_A_FILE:
            yield f"{path.relative_to(ROOT)} has {lines(path)} lines"
        for name, length in functions(path):
            if length > MOST_LINES_OF_A_FUNCTION:
                yield f"{name} in {path.relative_to(ROOT)} has {length} lines"
        for name in sorted(foreign_members(module)):
            yield f"{path.relative_to(ROOT)} uses {name} of another package"
    lengths = [length for path in modules().values() for _, length in functions(path)]
    if sum(length < SHORT for length in lengths) < SHARE_OF_SHORT * len(lengths):
        yield f"fewer than {SHARE_OF_SHORT:.0%} of the functions have under {SHORT} lines"
    for path in sorted(TESTS.rglob("*.py")):
        for name in sorted(patched_names(path)):
            yield f"{path.relative_to(ROOT)} patches {name}"


def main() -> None:
    """Print the table and the problems. Exits with 1 if there are problems."""
    sizes: Counter[str] = Counter()
    for module, path in modules().items():
        sizes[package(module)] += lines(path)
    for name, count in sizes.most_common(8):
        print(f"{count:>7,}  {count / sizes.total():>4.0%}  {name or 'furu'}")
    lengths = [length for path in modules().values() for _, length in functions(path)]
    longest = max(modules().values(), key=lines)
    print(f"{sizes.total():>7,}  lines in {len(modules())} files, {lines(longest)} in {longest.name}")
    share = sum(length < SHORT for length in lengths) / len(lengths)
    print(f"{len(lengths):>7,}  functions, {share:.1%} under {SHORT} lines, {max(lengths)} the longest")
    found = list(problems())
    print(*found, sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
