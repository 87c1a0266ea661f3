"""The canonical form of Python source: equal for sources that differ only in comments, docstrings,
formatting or annotations of functions, and equal in every supported version of Python.

`ast.dump` is not used, because its output differs between versions. The walk does not recurse. Pure.
"""

from __future__ import annotations

import ast
import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard


class Imported(NamedTuple):
    """What an import statement binds to a name: a module, or the attribute `attribute` of a module.
    `level` is the number of dots of a relative import."""

    module: str
    attribute: str | None = None
    level: int = 0


# Returns the text that stands for a name, and how many parts of the dotted path the text covers. The path
# is the name and the attributes that follow it. None keeps the name. If a function imports the name
# itself, the import is passed too.
Resolve = Callable[[tuple[str, ...], Imported | None], tuple[str, int] | None]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

# Not visited. Python 3.12 added `type_params`.
_IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores", "type_params", "returns"})
# Settings and hooks of a node class that do not affect the value of a node.
_WITHOUT_EFFECT = frozenset(
    {"_version", "_name", "_retry", "_timeout_sec", "_resources", "_executor_spec_key", "_validate"}
)


@dataclass(frozen=True, slots=True)
class _Scope:
    """The names that a function or a class body binds, and the scope around it."""

    names: frozenset[str]
    imports: dict[str, Imported] = field(default_factory=dict)
    is_class: bool = False
    parent: _Scope | None = None
    # The names of a node class's fields that count in identity, where these differ from the fields' names.
    known_as: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> tuple[bool, Imported | None]:
        """Return whether a name is bound in this scope or around it, and the import that binds it."""
        scope: _Scope | None = self
        while scope is not None:
            if scope is self or not scope.is_class:
                if name in scope.imports:
                    return False, scope.imports[name]
                if name in scope.names:
                    return True, None
            scope = scope.parent
        return False, None

    def field_name(self, name: str) -> str:
        """Return the name that counts for a field of the class around this scope."""
        scope: _Scope | None = self
        while scope is not None and not scope.is_class:
            scope = scope.parent
        return name if scope is None else scope.known_as.get(name, name)


_NOTHING = _Scope(frozenset())
_Item = str | tuple[ast.AST, _Scope]


def canonical(statement: ast.stmt, resolve: Resolve, *, is_node_class: bool = False) -> str:
    """Return the canonical form of a statement at the top level of a module.

    The name of a function or class that the statement defines does not count. For a node class, its fields
    do not count either, because their values are in the hash of each node.
    """
    parts: list[str] = []
    stack: list[_Item] = [(statement, _NOTHING)]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
            continue
        node, scope = item
        at_top = node is statement
        stack.extend(reversed(list(_items(node, scope, resolve, at_top, at_top and is_node_class))))
    return " ".join(parts)


def _items(
    node: ast.AST, scope: _Scope, resolve: Resolve, at_top: bool, is_node_class: bool
) -> Iterator[_Item]:
    """Yield the parts of a syntax node: text, and syntax nodes that are still to be visited."""
    if isinstance(node, ast.Name | ast.Attribute):
        yield from _name(node, scope, resolve)
    elif isinstance(node, ast.Constant):
        yield constant_text(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield from _joined(node, scope)
    elif isinstance(node, Function):
        yield from _function(node, scope, at_top)
    elif isinstance(node, ast.Lambda):
        yield from (
            "(Lambda",
            *_arguments(node.args, scope),
            (node.body, _inside(node, [node.body], scope)),
            ")",
        )
    elif isinstance(node, ast.ClassDef):
        yield from _class(node, scope, at_top, is_node_class)
    elif isinstance(node, _Comprehension):
        targets = [generator.target for generator in node.generators]
        yield node.generators[0].iter, scope  # evaluated outside the comprehension
        yield from _generic(node, _Scope(_bound(targets)[0], parent=scope))
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value is None:
        yield "(Return )"  # like a bare `return`
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from (
            "(Assign",
            "targets=",
            "[",
            (node.target, scope),
            "]",
            "value=",
            (node.value, scope),
            ")",
        )
    else:
        yield from _generic(node, scope)


def _generic(node: ast.AST, scope: _Scope) -> Iterator[_Item]:
    yield f"({type(node).__name__}"
    for name in node._fields:
        value = getattr(node, name, None)
        if name in _IGNORED or value is None or value == []:
            continue
        yield f"{name}="
        if isinstance(value, list):
            yield "["
            for one in _effective(value):
                yield (one, scope) if isinstance(one, ast.AST) else repr(one)
            yield "]"
        else:
            yield (value, scope) if isinstance(value, ast.AST) else repr(value)
    yield ")"


def _name(node: ast.Name | ast.Attribute, scope: _Scope, resolve: Resolve) -> Iterator[_Item]:
    attributes: list[str] = []
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        attributes.append(root.attr)
        root = root.value
    attributes.reverse()
    if isinstance(root, ast.Name):
        is_local, imported = scope.find(root.id)
        if is_local and root.id == "self" and attributes:
            attributes[0] = scope.field_name(attributes[0])
        found = None if is_local else resolve((root.id, *attributes), imported)
        text, used = found or (root.id, 1)
        yield text
        attributes = attributes[used - 1 :]
    else:
        yield (root, scope)
    for attribute in attributes:
        yield f".{attribute}"


def _joined(node: ast.JoinedStr, scope: _Scope) -> Iterator[_Item]:
    """Yield the parts of an f-string. Versions of Python split its text differently."""
    text = ""
    yield "(JoinedStr"
    for value in node.values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
            continue
        if text:
            yield constant_text(text)
            text = ""
        yield (value, scope)
    if text:
        yield constant_text(text)
    yield ")"


def _function(node: Function, scope: _Scope, at_top: bool) -> Iterator[_Item]:
    yield f"({type(node).__name__}"
    if not at_top:
        yield node.name
    for decorator in node.decorator_list:
        yield "@"
        yield (decorator, scope)
    yield from _arguments(node.args, scope)
    inner = _inside(node, node.body, scope)
    yield from ((statement, inner) for statement in _effective(node.body))
    yield ")"


def _arguments(arguments: ast.arguments, scope: _Scope) -> Iterator[_Item]:
    """Yield a function's parameters without annotations. Defaults are evaluated in the scope around it."""
    for kind in ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"):
        value = getattr(arguments, kind)
        named = value if isinstance(value, list) else [value] if value is not None else []
        yield from (kind, *(argument.arg for argument in named))
    for defaults in (arguments.defaults, arguments.kw_defaults):
        yield "defaults"
        for default in defaults:
            yield (default, scope) if default is not None else "-"


def _class(node: ast.ClassDef, scope: _Scope, at_top: bool, is_node_class: bool) -> Iterator[_Item]:
    yield "(ClassDef"
    if not at_top:
        yield node.name
    for kind, values in (("@", node.decorator_list), ("bases", node.bases), ("keywords", node.keywords)):
        yield kind
        yield from ((value, scope) for value in values)
    names, imports = _bound(node.body)
    known_as = dict(_renamed_fields(node)) if is_node_class else {}
    inner = _Scope(names, imports, is_class=True, parent=scope, known_as=known_as)
    for statement in _in_order(node.body):
        if is_node_class and not _counts(statement):
            continue
        if isinstance(statement, ast.AnnAssign):  # dataclasses and models read these annotations
            yield from _generic(statement, inner)
        else:
            yield (statement, inner)
    yield ")"


def _renamed_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield the fields with a `known_as`, which keeps the artifacts of a node class when it is edited."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            call = statement.value
            for keyword in call.keywords if isinstance(call, ast.Call) else ():
                if keyword.arg == "known_as" and isinstance(keyword.value, ast.Constant):
                    yield statement.target.id, str(keyword.value.value)


def names_in_field_types(statement: ast.stmt) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names in the annotations of a class's fields, also in quoted ones."""
    for line in statement.body if isinstance(statement, ast.ClassDef) else ():
        if isinstance(line, ast.AnnAssign) and not _is_class_variable(line.annotation):
            pending: list[ast.AST] = [line.annotation]
            while pending:
                node = pending.pop()
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    with contextlib.suppress(SyntaxError, ValueError):
                        pending.append(ast.parse(node.value, mode="eval").body)
                elif path := dotted_path(node):
                    yield path
                else:
                    pending += ast.iter_child_nodes(node)


def dotted_path(node: ast.AST) -> tuple[str, ...]:
    """Return the names in an expression such as ``a.b.c``; none for other expressions."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.insert(0, node.attr)
        node = node.value
    return (node.id, *path) if isinstance(node, ast.Name) else ()


def _in_order(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of a class body, with the methods sorted by name after the other statements. If
    their order matters, because a name is bound twice or the body uses a method, they stay as they are."""
    statements = [one for one in body if _has_effect(one)]
    methods: list[Function] = [one for one in statements if isinstance(one, Function)]
    others = [one for one in statements if not isinstance(one, Function)]
    names = {method.name for method in methods}
    used = {node.id for one in others for node in ast.walk(one) if isinstance(node, ast.Name)}
    if len(names) < len(methods) or names & used:
        return statements
    return [*others, *sorted(methods, key=operator.attrgetter("name"))]


def _counts(statement: ast.stmt) -> bool:
    """Whether a statement in the body of a node class may affect the values of nodes."""
    if isinstance(statement, Function):
        return statement.name not in _WITHOUT_EFFECT
    if isinstance(statement, ast.AnnAssign) and not _is_class_variable(statement.annotation):
        return _is_left_out_of_hash(statement.value)
    targets = (
        statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    )
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return not names or not _WITHOUT_EFFECT.issuperset(names)


def _is_left_out_of_hash(default: ast.expr | None) -> bool:
    """Whether a field, given with its default, does not count in the hash. Then its default is code."""
    keywords = default.keywords if isinstance(default, ast.Call) else ()
    given = {one.arg: getattr(one.value, "value", None) for one in keywords}
    return given.get("counts") is False or given.get("compare") is False or given.get("secret") is True


def _is_class_variable(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant):
        return "ClassVar" in str(annotation.value)
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return "ClassVar" in (getattr(annotation, "id", ""), getattr(annotation, "attr", ""))


def _effective(values: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Leave out statements that do nothing, and declarations of types."""
    for value in values:
        is_declaration = isinstance(value, ast.AnnAssign) and value.value is None
        if _has_effect(value) and not is_declaration:
            yield value


def _has_effect(node: ast.AST) -> bool:
    """Whether a syntax node does something. Docstrings and `pass` do not. Imports count where the names
    that they bind are used."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    return not isinstance(node, ast.Pass | ast.Import | ast.ImportFrom)


def constant_text(value: object) -> str:
    """Return a constant as text, with its type."""
    kind = type(value).__name__
    if isinstance(value, str):
        return f"{kind}:{value!a}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{kind}:{value:x}"  # hexadecimal, because Python limits the number of decimal digits
    if isinstance(value, float):
        return f"{kind}:{value.hex()}"
    return f"{kind}:{value!r}"


# ---- names ----


def _inside(node: Function | ast.Lambda, body: Sequence[ast.AST], parent: _Scope) -> _Scope:
    names, imports = _bound([node.args, *body])
    return _Scope(names, imports, parent=parent)


def imports_of(statement: ast.Import | ast.ImportFrom) -> dict[str, Imported]:
    """Return what an import statement binds. The name `*` stands for all names of a module."""
    if isinstance(statement, ast.ImportFrom):
        return {
            alias.asname or alias.name: Imported(statement.module or "", alias.name, statement.level)
            for alias in statement.names
        }
    return {
        alias.asname or alias.name.partition(".")[0]: Imported(
            alias.name if alias.asname else alias.name.partition(".")[0]
        )
        for alias in statement.names
    }


def is_definition(node: ast.AST) -> TypeGuard[Definition]:
    """Whether a syntax node defines a function or a class."""
    return isinstance(node, Definition)


def _bound(nodes: Iterable[ast.AST]) -> tuple[frozenset[str], dict[str, Imported]]:
    """Return the names that code binds in its own scope, and those among them that it imports."""
    names: set[str] = set()
    elsewhere: set[str] = set()
    imports: dict[str, Imported] = {}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if is_definition(node):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports |= imports_of(node)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere.update(node.names)
        elif isinstance(node, ast.Lambda | _Comprehension):
            walrus = (one.target for one in ast.walk(node) if isinstance(one, ast.NamedExpr))
            names.update(target.id for target in walrus)
        else:
            names.update(_bound_by(node))
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(names - elsewhere), imports


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name is not None:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        yield node.rest
