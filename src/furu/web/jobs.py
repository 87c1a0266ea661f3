"""Jobs that clients may start: functions of the service that create roots from checked arguments.

A request names a job, never a class, a module or a path.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from furu._common.checks import check_choice
from furu.errors import FuruError, FuruUsageError
from furu.node.furu import Furu
from furu.service.run import OnDisconnect

__all__ = ["Job", "JobInputError", "job"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class JobInputError(FuruError, ValueError):
    """The arguments in a request are not valid for the job. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class Job:
    """A function that clients may call as `name`. Create jobs with `job`."""

    name: str
    make: Callable[..., Iterable[Furu[Any]] | Furu[Any]]
    on_disconnect: OnDisconnect
    arguments: type[msgspec.Struct]

    def parameters(self) -> dict[str, str]:
        """Return the type of each argument, as text for people."""
        hints = {field.name: field.type for field in msgspec.structs.fields(self.arguments)}
        return {name: inspect.formatannotation(kind) for name, kind in hints.items()}

    def make_roots(self, body: bytes) -> tuple[Furu[Any], ...]:
        """Create roots from a JSON object with the job's arguments.

        Calls the service's function, which may read files, so an event loop must call this in a thread.

        Raises:
            JobInputError: An argument is missing, unknown or of a wrong type, or the function raised a
                `ValueError`.
            FuruUsageError: The function returned neither a node nor an iterable.
        """
        try:
            arguments = msgspec.json.decode(body or b"{}", type=self.arguments)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise JobInputError(f"the arguments of {self.name} cannot be used: {error}") from None
        try:
            made = self.make(**msgspec.structs.asdict(arguments))
        except FuruError:  # a wrong setting is a ValueError too, but not the client's error
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
    """Return a job that lets clients start a run of the nodes that `make` returns.

    The body of a request is a JSON object with the arguments of `make`. Each argument is decoded to the
    annotated type of its parameter, and `make` is called in a thread. An argument that is missing, unknown
    or of a wrong type is the client's error. So is a `ValueError` that `make` raises, and the client sees
    its message. Any other exception is an error of the service.

    Args:
        name: The name in requests: at most 64 letters, digits, ``_`` and ``-``.
        make: A function that returns a node or an iterable of nodes. All its parameters must be annotated
            with types that msgspec can decode.
        on_disconnect: Whether the run is cancelled or continues when the last waiting client has left.

    Raises:
        FuruUsageError: The name or the function cannot be used for a job.
        ValueError: `on_disconnect` has a wrong value.

    >>> from furu.demo import Report
    >>> def make_report(days: int) -> Report: ...
    >>> job("report", make_report, on_disconnect="finish").parameters()
    {'days': 'int'}
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise FuruUsageError(f"a job's name is 1 to 64 letters, digits, _ and -, not {name!r}")
    if not callable(make) or inspect.iscoroutinefunction(make):
        raise FuruUsageError(f"the job {name} needs a plain function that returns nodes, not {make!r}")
    check_choice("on_disconnect", on_disconnect, get_args(OnDisconnect))
    return Job(name, make, on_disconnect, _arguments_of(name, make))


def _arguments_of(name: str, make: Callable[..., Any]) -> type[msgspec.Struct]:
    """Return a msgspec type for decoding the arguments of a function."""
    hints = typing.get_type_hints(make, include_extras=True)
    fields: list[Any] = []
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind not in _PLAIN or parameter.name not in hints:
            raise FuruUsageError(
                f"the parameter {parameter.name} of the job {name} must have a name and an annotation, by "
                "which the arguments of clients are decoded"
            )
        field = (parameter.name, hints[parameter.name])
        fields.append(field if parameter.default is parameter.empty else (*field, parameter.default))
    try:
        arguments = msgspec.defstruct(
            name.replace("-", "_"), fields, kw_only=True, forbid_unknown_fields=True
        )
        msgspec.json.schema(arguments)  # rejects undecodable types now, not at the first request
    except (TypeError, NameError) as error:
        raise FuruUsageError(
            f"the parameters of the job {name} cannot be decoded from JSON: {error}"
        ) from error
    return arguments
