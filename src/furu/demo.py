"""An example to read and copy: it analyses a Python source tree and finds import cycles.

    one File per module -> one ParsedModule per file -> one Package per directory -> one Report

After a file changes, only the nodes that depend on it are computed again.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from furu import File, Furu, FuruError

TOP = 10  # functions kept in each result: enough to find the ten largest of all
NOT_SOURCE = {"__pycache__", "site-packages", "dist-packages"}
NOT_RUN = {"TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


@dataclass(frozen=True)
class Function:
    """A function or method, named `module:Class.method`. Its measures include nested functions."""

    name: str
    line: int
    lines: int
    branches: int


@dataclass(frozen=True)
class Module:
    """A module. `imports` lists full names. `error` is the reason if the file cannot be parsed."""

    name: str
    lines: int
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """Facts about some modules. Each list begins with the largest item. Only a `Report` fills `cycles`."""

    modules: tuple[Module, ...]
    longest: tuple[Function, ...] = ()
    most_branching: tuple[Function, ...] = ()
    cycles: tuple[tuple[str, ...], ...] = ()


class ParsedModule(Furu[Facts]):
    """One parsed file. If the file cannot be parsed, the node does not fail: it records the error."""

    _version = f"1 on {sys.version_info[:2]}"  # raise the 1 if _create changes; parsing depends on Python
    name: str
    is_package: bool
    source: File

    def _create(self) -> Facts:
        content = self.source.get().read_bytes()
        lines = len(content.splitlines())
        try:
            tree = ast.parse(content)  # bytes, because a file may declare its encoding
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return Facts((Module(self.name, lines, error=f"{type(error).__name__}: {error}"),))
        nodes = list(statements(tree, f"{self.name}:"))
        functions = tuple(measured(node, name) for node, name in nodes if isinstance(node, FUNCTIONS))
        classes = sum(isinstance(node, ast.ClassDef) for node, _ in nodes)
        branches = sum(isinstance(node, BRANCHES) for node, _ in nodes)
        imports = tuple(sorted(set(imported(tree, self.name, self.is_package))))
        module = Module(self.name, lines, len(functions), classes, branches, imports)
        return join([Facts((module,), functions, functions)])


class Package(Furu[Facts]):
    """The modules of one directory."""

    name: str
    modules: tuple[ParsedModule, ...]

    def _create(self) -> Facts:
        return join([module.get() for module in self.modules])


class Report(Furu[Facts]):
    """All packages and the import cycles between their modules. Also writes `report.md` to `furu_dir`."""

    packages: tuple[Package, ...]

    def _create(self) -> Facts:
        facts = join([package.get() for package in self.packages])
        facts = replace(facts, cycles=tuple(sorted(cycles(import_graph(facts)), key=len, reverse=True)))
        (self.furu_dir / "report.md").write_text(markdown(facts), encoding="utf-8")
        return facts


def analyse(source: Path) -> Report:
    """Return the root node for a source tree. Modules are named as other code imports them."""
    source = source.resolve()
    base = next(at for at in (source, *source.parents) if not (at / "__init__.py").exists())
    packages: dict[str, list[ParsedModule]] = {}
    for path in sorted(source.rglob("*.py")):
        *package, name = path.relative_to(base).with_suffix("").parts
        if path.is_file() and not any(part in NOT_SOURCE or part[0] == "." for part in [*package, name]):
            full_name = ".".join(package if name == "__init__" else [*package, name]).removeprefix("src.")
            module = ParsedModule(name=full_name, is_package=name == "__init__", source=File(path=path))
            packages.setdefault(".".join(package), []).append(module)
    if not packages:
        raise FuruError(f"{source} holds no Python files to analyse")
    return Report(packages=tuple(Package(name=n, modules=tuple(m)) for n, m in packages.items()))


def join(parts: list[Facts]) -> Facts:
    """Combine facts, and keep only the first `TOP` functions of each list."""
    modules = sorted((m for part in parts for m in part.modules), key=lambda m: (-m.lines, m.name))
    longest = sorted((f for part in parts for f in part.longest), key=lambda f: (-f.lines, f.name))
    most = sorted((f for part in parts for f in part.most_branching), key=lambda f: (-f.branches, f.name))
    return Facts(tuple(modules), tuple(longest[:TOP]), tuple(most[:TOP]))


def statements(tree: ast.AST, scope: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield the statements of a tree, each with the name of the innermost definition that contains it."""
    pending = [(tree, scope)]
    while pending:  # a loop, because generated code may be nested deeper than Python's recursion limit
        node, scope = pending.pop()
        scope += f"{node.name}." if isinstance(node, (*FUNCTIONS, ast.ClassDef)) else ""
        yield node, scope
        pending += [(n, scope) for n in ast.iter_child_nodes(node) if not isinstance(n, ast.expr)]


def measured(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Function:
    """Measure a function."""
    branches = sum(isinstance(inside, BRANCHES) for inside, _ in statements(node, name))
    return Function(name[:-1], node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1, branches)


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield the names that a module imports when it is imported. Skips functions and NOT_RUN blocks."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package):  # more dots are an error
            start = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join(filter(None, [*start, node.module, alias.name])) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in NOT_RUN:
            pending += node.orelse
        elif not isinstance(node, (*FUNCTIONS, ast.expr)):
            pending += ast.iter_child_nodes(node)


def import_graph(facts: Facts) -> dict[str, list[str]]:
    """Return the modules that each module imports, with their packages, except its own packages."""
    graph: dict[str, list[str]] = {module.name: [] for module in facts.modules}
    for name, imports in ((module.name, module.imports) for module in facts.modules):
        for target in imports:  # `from a import b` imports the module a.b if there is one, else a
            known = [at for at in accumulate(target.split("."), "{}.{}".format) if at in graph]
            graph[name] += [at for at in known if at == known[-1] or not name.startswith(f"{at}.")]
    return graph


def cycles(graph: dict[str, list[str]]) -> Iterator[tuple[str, ...]]:
    """Yield the groups of modules that import each other (Tarjan 1972, without recursion)."""
    number, lowest = dict[str, int](), dict[str, int]()  # order of visits; the lowest number reachable
    pending, opened = list(graph), list[str]()  # opened: visited modules whose group is not complete
    while pending:
        name = pending.pop()
        if name not in number:
            number[name] = lowest[name] = len(number)
            opened.append(name)
            pending += [name, *(target for target in graph[name] if target not in number)]
            continue
        lowest[name] = min(lowest[target] for target in (name, *graph[name]))
        if lowest[name] == number[name]:  # the first visited module of its group
            group = [opened.pop() for _ in opened[opened.index(name) :]]
            lowest.update(dict.fromkeys(group, len(graph)))
            yield from [tuple(sorted(group))] if len(group) > 1 else []


def markdown(facts: Facts) -> str:
    """Return the report as Markdown."""
    lines = [f"# {len(facts.modules):,} modules\n\n## Import cycles (but for functions, TYPE_CHECKING)\n"]
    lines += [f"- {len(group)} modules: `{'`, `'.join(group)}`" for group in facts.cycles]
    tables = {"Longest functions": facts.longest, "Most branching functions": facts.most_branching}
    for title, rows in {**tables, "Modules": facts.modules}.items():
        columns = [name for name in vars(rows[0]) if name != "imports"] if rows else []
        lines += [f"\n## {title}\n", "|".join(columns), "|".join("---" for _ in columns)]
        lines += ["|".join(f"`{vars(row)[name] or '-'}`" for name in columns) for row in rows]
    return "\n".join(lines) + "\n"
