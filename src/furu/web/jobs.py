"""What clients may start: functions of the service that make roots from checked arguments.

A request names a job, never a class, a module or a path. Runs nothing itself.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from furu import FuruError, FuruUsageError
from furu.node.furu import Furu
from furu.service.run import OnDisconnect

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class JobInputError(FuruError, ValueError):
    """A request has arguments that the job does not take; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Job:
    """A function that clients may call by `name`; made by `job`."""

    name: str
    make: Callable[..., Iterable[Furu[Any]] | Furu[Any]]
    on_disconnect: OnDisconnect
    arguments: type[msgspec.Struct]

    def parameters(self) -> dict[str, str]:
        """Return the type of each argument, as text for people."""
        hints = {field.name: field.type for field in msgspec.structs.fields(self.arguments)}
        return {name: inspect.formatannotation(kind) for name, kind in hints.items()}

    def make_roots(self, body: bytes) -> tuple[Furu[Any], ...]:
        """Make roots from a JSON object with the job's arguments. Calls the service's function, which may
        read files: a running loop does this in a thread.

        Raises `JobInputError` for arguments of other names or types, and if the function raises a
        `ValueError`; `FuruUsageError` if it returns something other than nodes.
        """
        try:
            arguments = msgspec.json.decode(body or b"{}", type=self.arguments)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise JobInputError(f"the arguments of {self.name} cannot be used: {error}") from None
        try:
            made = self.make(**msgspec.structs.asdict(arguments))
        except FuruError:  # such as a setting with a wrong value: not the client's error
            raise
        except ValueError as error:
            raise JobInputError(f"{self.name} refuses these arguments: {error}") from error
        roots = (made,) if isinstance(made, Furu) else made
        if not isinstance(roots, Iterable) or isinstance(roots, (str, bytes)):
            raise FuruUsageError(
                f"the function of the job {self.name} must return nodes, not a {type(made).__qualname__}"
            )
        return tuple(roots)


def job(
    name: str,
    make: Callable[..., Iterable[Furu[Any]] | Furu[Any]],
    *,
    on_disconnect: OnDisconnect = "cancel",
) -> Job:
    """Let clients start a run of the nodes that `make` returns, under `name`.

    `make` is called in a thread with the arguments of a request, which are a JSON object: each is decoded
    as its parameter is annotated, and one that is missing, unknown or of another type is the client's
    error. So is a `ValueError` that `make` raises; its message is shown to the client. Any other exception
    is an error of the service.

    Args:
        name: What a request calls it: letters, digits, ``_`` and ``-``, at most 64.
        make: A function whose parameters are all annotated with types that msgspec decodes; it returns a
            node, or several.
        on_disconnect: What happens when the last client that waits has left: the run is cancelled, or
            finishes.

    Raises:
        FuruUsageError: The name or the function cannot be used for a job.

    >>> from furu.demo import Report
    >>> def make_report(days: int) -> Report: ...
    >>> job("report", make_report, on_disconnect="finish").parameters()
    {'days': 'int'}
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise FuruUsageError(f"a job's name is 1 to 64 letters, digits, _ and -, not {name!r}")
    if not callable(make) or inspect.iscoroutinefunction(make):
        raise FuruUsageError(f"the job {name} needs a plain function that returns nodes, not {make!r}")
    if on_disconnect not in get_args(OnDisconnect):
        raise FuruUsageError(f"on_disconnect must be 'cancel' or 'finish', not {on_disconnect!r}")
    return Job(name, make, on_disconnect, _arguments_of(name, make))


def _arguments_of(name: str, make: Callable[..., Any]) -> type[msgspec.Struct]:
    """The arguments of a function as a type to decode."""
    hints = typing.get_type_hints(make, include_extras=True)
    fields: list[Any] = []
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind not in _PLAIN or parameter.name not in hints:
            raise FuruUsageError(
                f"the parameter {parameter.name} of the job {name} must have a name and a type: clients' "
                "arguments are decoded as the annotations say"
            )
        field = (parameter.name, hints[parameter.name])
        fields.append(field if parameter.default is parameter.empty else (*field, parameter.default))
    try:
        arguments = msgspec.defstruct(
            name.replace("-", "_"), fields, kw_only=True, forbid_unknown_fields=True
        )
        msgspec.json.schema(arguments)  # refuses the types that a decoder only meets in a request
    except (TypeError, NameError) as error:
        raise FuruUsageError(
            f"the parameters of the job {name} cannot be decoded from JSON: {error}"
        ) from error
    return arguments
