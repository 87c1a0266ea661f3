"""`furu status`, `show` and `explain`: show what is in a store. They do not change it, and import no user
code."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

import furu.store.catalog as catalog
from furu._common.text import printable
from furu.cli.output import complain, console, say, show_table, size
from furu.codecs.typed import described
from furu.errors import FuruError, FuruStoreError
from furu.planning.compare import Difference, differences
from furu.settings import Settings, current_settings
from furu.store.artifact import Artifact, Status
from furu.store.leftovers import checkpoints
from furu.store.node_json import node_json, read_logs
from furu.store.references import is_reference

if TYPE_CHECKING:
    from rich.console import Console

_STATES = (Status.DONE, Status.FAILED, Status.IN_PROGRESS, Status.TODO)
_MAX_RESULT_CHARS = 2000
# `explain` reads at most this many nodes of a class. The nearest of them is near enough.
_MAX_SIBLINGS = 5000
_MAX_EXPLAINED_DEPTH = 8
# `status` reads the records of this many published nodes of a class, to count the codes that made them.
_MAX_CODES_READ = 1000
_UNREADABLE = "unreadable"

Hash = Annotated[str, typer.Argument(metavar="HASH", help="A node's hash, or the beginning of one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def status(as_json: AsJson = False) -> None:
    """Count the nodes in the store by class and state."""
    settings = current_settings()
    counts: dict[str, Counter[str]] = {}
    codes: dict[str, set[str]] = {}
    sizes: Counter[str] = Counter()
    problems: list[str] = []
    for artifact in catalog.walk(settings, problems=problems):
        counts.setdefault(artifact.node_class, Counter())[_state(artifact)] += 1
        sizes[artifact.node_class] += catalog.size_bytes(artifact)
        known = codes.setdefault(artifact.node_class, set())
        if counts[artifact.node_class][Status.DONE] <= _MAX_CODES_READ:
            record = catalog.read_small(artifact)
            known.update([record.code] if record is not None and record.code else [])
    out = console()
    if as_json:
        classes = {
            name: {**count, "size_bytes": sizes[name], "codes": len(codes[name])}
            for name, count in counts.items()
        }
        found = {"store": str(settings.store), "classes": classes, "problems": problems}
        say(out, json.dumps(found))
        return
    nodes = sum(count.total() for count in counts.values())
    say(out, f"{settings.store}: {nodes:,} nodes, {size(sizes.total())}")
    states = [*_STATES, _UNREADABLE] if any(_UNREADABLE in count for count in counts.values()) else _STATES
    rows = [
        [name, *(counts[name][state] for state in states), size(sizes[name])] for name in sorted(counts)
    ]
    show_table(out, ["class", *states, "size"], rows)
    for name in sorted(name for name in codes if len(codes[name]) > 1):
        say(out, f"{name}: made by {len(codes[name])} versions of its code; furu plan counts the old ones")
    for problem in problems:
        complain(f"not counted: {problem}")


def _state(artifact: Artifact) -> str:
    try:
        return artifact.status()
    except FuruStoreError:
        return _UNREADABLE


def show(node: Hash, as_json: AsJson = False) -> None:
    """Show a stored node: configuration, result, attempts and logs."""
    info = catalog.inspect(catalog.find(current_settings(), node))
    out = console()
    if as_json:
        say(out, json.dumps(_as_json(info)))
        return
    say(out, f"{info.node_class} {info.artifact.hash}", "bold")
    say(out, f"state      {info.status}")
    say(out, f"path       {info.artifact.path}")
    if info.missing:
        say(out, f"partial    without {len(info.missing)} nodes that had failed:", "yellow")
        for node_hash in info.missing:
            say(out, f"           {node_hash}")
    for path in checkpoints(info.artifact):
        say(out, f"checkpoint {path}")
    if info.problem:
        say(out, f"problem    {info.problem}", "red")
    if info.duration_sec is not None:
        say(out, f"computed   {_when(info.started_at)}, in {info.duration_sec:.3f} s")
    if info.made_by is not None:
        say(out, f"made by    {info.made_by}")
        if info.made_by.source:
            say(out, f"source     {info.made_by.source}")
    if info.config is not None:
        _show_block(out, "configuration", json.dumps(info.config, indent=2, ensure_ascii=False))
    if info.result is not None:
        _show_block(out, "result", described(info.codec, info.result).decode("utf-8", "replace"))
    for attempt in info.attempts:
        _show_attempt(out, info.artifact, attempt)


def _show_attempt(out: Console, artifact: Artifact, attempt: catalog.AttemptInfo) -> None:
    by = f" by {attempt.owner}" if attempt.owner else ""
    when = f" {_when(attempt.started_at)}" if attempt.started_at is not None else ""
    took = f", after {attempt.duration_sec:.3f} s" if attempt.duration_sec is not None else ""
    say(out)
    say(out, f"attempt {attempt.number}: {attempt.state}{by}{when}{took}", "bold")
    for line in attempt.traceback or ([attempt.error] if attempt.error else []):
        say(out, f"  {line}")
    log = catalog.read_log(artifact, attempt.number)
    if log is not None:
        left_out = f", its first {size(log.left_out_bytes)} left out" if log.left_out_bytes else ""
        _show_block(out, f"log{left_out}", log.text, cut=False)


def _show_block(out: Console, title: str, text: str, *, cut: bool = True) -> None:
    say(out)
    say(out, title, "bold")
    shown = text[:_MAX_RESULT_CHARS] if cut else text
    for line in shown.splitlines():
        say(out, f"  {line}")
    if len(shown) < len(text):
        say(out, f"  ... {len(text) - len(shown):,} more characters")


def _when(at: float | None) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):  # a damaged record may contain any number
        return "at an unknown time"


def _as_json(info: catalog.NodeInfo) -> dict[str, Any]:
    result = json.loads(described(info.codec, info.result)) if info.result is not None else None
    return {**node_json(info, read_logs(info)), "path": str(info.artifact.path), "result": result}


def explain(node: Hash) -> None:
    """Compare a stored node with the most similar node of its class.

    Shows the fields that differ. If an input differs, compares the fields of the input too, and so on.
    """
    settings = current_settings()
    info = catalog.inspect(catalog.find(settings, node))
    if info.config is None:
        raise FuruError(f"the store holds no configuration of {info.artifact}")
    out = console()
    nearest = _nearest(info)
    if nearest is None:
        say(out, f"{info.node_class} {info.artifact.hash} is the only recorded node of its class")
        return
    say(out, f"{info.node_class}", "bold")
    say(out, f"  this     {info.artifact.hash}, {info.status}")
    say(out, f"  nearest  {nearest.artifact.hash}, {nearest.status}")
    for line in _explained(settings, nearest, info, 1):
        say(out, line)
    if nearest.made_by and info.made_by and nearest.made_by.code != info.made_by.code:
        say(out, f"  made by other code: {nearest.made_by} -> {info.made_by}")


def _explained(
    settings: Settings, before: catalog.NodeInfo, after: catalog.NodeInfo, depth: int
) -> Iterator[str]:
    indent = "  " * depth
    found = differences(before.config or {}, after.config or {})
    if not found:
        yield f"{indent}no recorded field differs: the _version of the class does, or a hidden field"
    for one in found:
        yield f"{indent}{one.path}: {_told(one)}"
        if is_reference(one.before) and is_reference(one.after) and depth < _MAX_EXPLAINED_DEPTH:
            below = [_of_node(settings, value) for value in (one.before, one.after)]
            if below[0] is not None and below[1] is not None:
                yield from _explained(settings, below[0], below[1], depth + 1)


def _told(one: Difference) -> str:
    if one.only == "before":
        return f"{_value(one.before)} -> nothing"
    if one.only == "after":
        return f"nothing -> {_value(one.after)}"
    return f"{_value(one.before)} -> {_value(one.after)}"


def _value(value: Any) -> str:
    if is_reference(value):
        path = f" {value['path']}" if "path" in value else ""
        return printable(f"{value['node']}{path} {value['hash'][:8]}")
    text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= 100 else f"{text[:97]}...")


def _of_node(settings: Settings, value: dict[str, Any]) -> catalog.NodeInfo | None:
    """Look up a node that a configuration refers to. None for input files, which are not in the store."""
    found = catalog.walk(settings, node_class=str(value["node"]), prefix=str(value["hash"]))
    artifact = next(found, None)
    info = catalog.inspect(artifact) if artifact else None
    return info if info and info.config is not None else None


def _nearest(info: catalog.NodeInfo) -> catalog.NodeInfo | None:
    """Return the other node of the class whose configuration differs in the fewest places."""
    best: tuple[int, catalog.NodeInfo] | None = None
    siblings = catalog.walk(info.artifact.settings, node_class=info.node_class)
    for artifact in itertools.islice(siblings, _MAX_SIBLINGS):
        if artifact.hash == info.artifact.hash:
            continue
        other = catalog.inspect(artifact)
        if other.config is None:
            continue
        count = len(differences(other.config, info.config or {}))
        if best is None or count < best[0]:
            best = (count, other)
    return best[1] if best else None
