"""The demo: its findings in a small source tree, and what it computes again after a change."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from furu import File, FuruError, RunReport, run_local
from furu.demo import Facts, Function, Module, ParsedModule, Report, analyse, cycles
from furu.events import Event, NodeDone

# shop.cart -> shop.price -> shop.tax -> shop.cart; there is no other cycle.
TREE = {
    "shop/__init__.py": "from .cart import Cart\n",
    "shop/cart.py": (
        "from . import price\n\n\nclass Cart:\n    def total(self):\n        return price.of(self)\n"
    ),
    "shop/price.py": (
        "from shop import tax\n\n\n"
        "def of(cart):\n"
        "    def once(item):\n"
        "        if item:\n"
        "            return tax.on(item)\n"
        "    for item in cart:\n"
        "        once(item)\n"
    ),
    "shop/tax.py": "import shop.cart\n",
    "shop/till/__init__.py": "",
    "shop/till/drawer.py": "from ..tax import on\n",
    "run.py": "import shop.till.drawer\n\nif __name__ == '__main__':\n    shop.main()\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write a source tree into a folder, and return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(source: Path) -> tuple[Report, RunReport, list[str]]:
    """Run the demo on a tree. Returns the report node, the run's report and the names of computed nodes."""
    report, done = analyse(source), []

    def on_event(event: Event) -> None:
        if isinstance(event, NodeDone):
            done.append(event.hash)

    ran = run_local([report], max_workers=2, on_event=on_event)
    nodes = [
        report,
        *report.packages,
        *(module for package in report.packages for module in package.modules),
    ]
    names = {node.furu_hash: f"{type(node).__name__} {getattr(node, 'name', '')}".strip() for node in nodes}
    return report, ran, sorted(names[node_hash] for node_hash in done)


def facts_of(folder: Path, files: dict[str, str]) -> Facts:
    """Write a source tree, and return the facts that the demo finds in it."""
    report, _, _ = run(write(folder, files))
    return report.get()


def module(facts: Facts, name: str) -> Module:
    """Return the facts about one module."""
    return next(module for module in facts.modules if module.name == name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`TREE`, written to disk."""
    return write(tmp_path / "tree", TREE)


def test_cycle_of_imports_is_found(tree: Path) -> None:
    report, _, _ = run(tree)
    assert (("shop.cart", "shop.price", "shop.tax"),) == report.get().cycles


def test_modules_are_measured_and_sorted_by_lines(tree: Path) -> None:
    """The largest module comes first."""
    report, _, _ = run(tree)
    facts = report.get()
    assert ["shop.price", "shop.cart", "run"] == [module.name for module in facts.modules[:3]]
    assert Module("shop.price", 9, functions=2, branches=2, imports=("shop.tax",)) == facts.modules[0]
    assert Module("shop.cart", 6, functions=1, classes=1, imports=("shop.price",)) == facts.modules[1]


def test_functions_are_named_by_where_they_are_defined(tree: Path) -> None:
    """The lines and branches of a nested function also count for the function around it."""
    report, _, _ = run(tree)
    assert (
        Function("shop.price:of", line=4, lines=6, branches=2),
        Function("shop.price:of.once", line=5, lines=3, branches=1),
        Function("shop.cart:Cart.total", line=5, lines=2, branches=0),
    ) == report.get().most_branching


def test_report_is_written_into_the_node_s_directory(tree: Path) -> None:
    report, _, _ = run(tree)
    text = (report.furu_dir / "report.md").read_text(encoding="utf-8")
    assert "- 3 modules: `shop.cart`, `shop.price`, `shop.tax`\n" in text
    assert "`shop.price:of`|`4`|`6`|`2`\n" in text
    assert all(module.name in text for module in report.get().modules)


def test_second_run_computes_nothing(tree: Path) -> None:
    _, first, _ = run(tree)
    _, second, done = run(tree)
    assert (len(TREE) + 3 + 1, 0) == (first.computed, second.computed)
    assert [] == done


def test_changed_file_computes_only_its_dependents(tree: Path) -> None:
    """The file's module, its package and the report are computed again."""
    run(tree)
    (tree / "shop/till/drawer.py").write_text("from ..price import of\n")
    _, ran, done = run(tree)
    assert ["Package shop.till", "ParsedModule shop.till.drawer", "Report"] == done
    assert 3 == ran.computed


def test_same_content_elsewhere_is_the_same_node(tree: Path, tmp_path: Path) -> None:
    """A node is identified by module names and file contents, not by the path of the tree."""
    run(tree)
    shutil.copytree(tree, tmp_path / "copy")
    _, ran, _ = run(tmp_path / "copy")
    assert 0 == ran.computed


def test_file_that_does_not_parse_is_reported_and_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/not_utf8.py").write_bytes(b"name = '\xff'\n")
    (tmp_path / "tree/null.py").write_bytes(b"name = '\0'\n")
    facts = facts_of(tmp_path / "tree", {"bad.py": "def broken(:\n", "good.py": "import bad\n"})
    assert ["bad", "not_utf8", "null"] == sorted(module.name for module in facts.modules if module.error)
    assert module(facts, "bad").error.startswith("SyntaxError: ")
    assert 1 == module(facts, "bad").lines


def test_file_s_own_encoding_is_respected(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/old.py").write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n")
    assert "" == module(facts_of(tmp_path / "tree", {}), "old").error


@pytest.mark.parametrize(
    "text",
    [
        "def late():\n    import b\n",
        "async def late():\n    import b\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import b\n",
        "import typing\nif typing.TYPE_CHECKING:\n    from b import c\n",
        "if __name__ == '__main__':\n    import b\n",
    ],
)
def test_import_that_does_not_run_on_import_is_not_counted(text: str, tmp_path: Path) -> None:
    """Imports in functions, under `TYPE_CHECKING` and in the `__main__` block do not run on import."""
    assert () == facts_of(tmp_path / "tree", {"a.py": text, "b.py": "import a\n"}).cycles


@pytest.mark.parametrize(
    "text",
    [
        "import b\n",
        "class Holder:\n    from b import c\n",
        "try:\n    import b\nexcept ImportError:\n    pass\n",
        "with open('x') as file:\n    import b\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import b\n",
        "match 1:\n    case 1:\n        import b\n",
    ],
)
def test_import_that_runs_on_import_is_counted(text: str, tmp_path: Path) -> None:
    """Such an import may be anywhere in the module, for example in a class body or a `try` statement."""
    assert (("a", "b"),) == facts_of(tmp_path / "tree", {"a.py": text, "b.py": "import a\n"}).cycles


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"p/__init__.py": "from . import a", "p/a.py": "from . import b", "p/b.py": ""}, ()),
        ({"p/__init__.py": "from . import a", "p/a.py": "from . import name"}, (("p", "p.a"),)),
        ({"p/__init__.py": "", "p/a.py": "from ..p import b", "p/b.py": "from .a import *"}, ()),
        (
            {"p/__init__.py": "", "p/a.py": "from .q.c import x", "p/q/__init__.py": "import p.a"},
            (("p.a", "p.q"),),
        ),
        (
            {
                "p/__init__.py": "",
                "p/q/__init__.py": "",
                "p/a.py": "import p.q.c",
                "p/q/c.py": "from .. import a",
            },
            (("p.a", "p.q.c"),),
        ),
        ({"a.py": "from . import b", "b.py": "import a"}, ()),
    ],
    ids=[
        "sibling",
        "name of the package",
        "beyond the top",
        "package on the way",
        "two dots",
        "no package",
    ],
)
def test_relative_import_is_resolved(
    files: dict[str, str], expected: Iterable[tuple[str, ...]], tmp_path: Path
) -> None:
    """Relative imports are resolved as in Python. A relative import with too many dots is dropped."""
    assert expected == facts_of(tmp_path / "tree", files).cycles


def test_cycles_are_groups_of_mutually_reachable_modules() -> None:
    """Compares `cycles` with mutual reachability, computed from its definition, for random graphs."""
    for seed in range(300):
        draw = random.Random(seed)
        names = [str(number) for number in range(draw.randint(1, 9))]
        graph = {name: [other for other in names if draw.random() < 0.2] for name in names}
        reached = {name: {name} for name in names}
        for _ in names:
            for name in names:
                reached[name].update(*(graph[other] for other in reached[name]))
        mutual = {
            tuple(sorted(other for other in reached[name] if name in reached[other])) for name in names
        }
        assert sorted(group for group in mutual if len(group) > 1) == sorted(cycles(graph))


def test_long_cycle_needs_no_recursion() -> None:
    """The cycle is ten times as long as the recursion limit."""
    graph = {str(number): [str((number + 1) % 10_000)] for number in range(10_000)}
    assert [10_000] == [len(group) for group in cycles(graph)]


@pytest.mark.parametrize(
    ("start", "names"),
    [("", ["p", "p.a"]), ("src", ["p", "p.a"]), ("src/p", ["p", "p.a"])],
)
def test_module_names_begin_at_the_import_root(start: str, names: list[str], tmp_path: Path) -> None:
    """The source may be a project's directory, its `src`, or a package."""
    write(tmp_path / "tree", {"src/p/__init__.py": "", "src/p/a.py": ""})
    report = analyse(tmp_path / "tree" / start)
    assert names == sorted(module.name for package in report.packages for module in package.modules)


def test_installed_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    """Cache directories and dead links are skipped too."""
    files = ["a.py", "lib/site-packages/b.py", ".venv/c.py", "__pycache__/d.py", "dist-packages/e.py"]
    write(tmp_path / "tree", dict.fromkeys(files, ""))
    (tmp_path / "tree/link.py").symlink_to("nowhere.py")
    assert ["a"] == [module.name for module in facts_of(tmp_path / "tree", {}).modules]


def test_tree_without_python_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FuruError, match=f"{tmp_path} holds no Python files"):
        analyse(tmp_path)


def test_parsed_module_works_alone(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "import b\n"})
    node = ParsedModule(name="a", is_package=False, source=File(path=tmp_path / "a.py"))
    assert (Module("a", 1, imports=("b",)),) == node.get().modules
