"""A method of a room by name, with the user's options: what is misspelt or of the wrong kind is said before any work begins."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any

from .errors import BadOption, NotFound


def method_of(room: str, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """The method `name` of `room`; an option it does not have is answered with the nearest. Raises NotFound, BadOption."""
    table = importlib.import_module(f"skillweave.{room}").METHODS
    if name not in table:
        raise NotFound("method", name, table, hint=f"skillweave {room} --method {' | '.join(table)}")
    method = resolve(table[name])
    fields = {f.name: f for f in dataclasses.fields(method)}
    chosen = {}
    for option, value in (options or {}).items():
        if option not in fields:
            raise NotFound(f"option of {name}", option, fields, hint=f"{name} has {', '.join(fields) or 'no options'}")
        chosen[option] = _fitting(option, value, fields[option].default, room)
    return method(**chosen)


def resolve(target: str) -> Any:
    """What `package.module:name` stands for."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def _fitting(option: str, value: Any, default: Any, room: str) -> Any:
    """`value` as the kind of thing that `default` is."""
    hint = f"its default is {default if default != () else 'one for each skill'}"
    if isinstance(default, str):
        if not isinstance(value, str):
            raise BadOption(f"{option} is {value!r}, but has to be a word.", hint)
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadOption(f"{option} is {value!r}, but has to be true or false.", f"write it as in --set {option}=true")
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
            raise BadOption(
                f"{option} is {value!r}, but has to be a list of numbers.", f"write it as in --set {option}=[0.7,0.3]"
            )
        return tuple(map(float, value))
    if not _is_number(value) or (isinstance(default, int) and value != int(value)):
        raise BadOption(f"{option} is {value!r}, but has to be a{' whole' * isinstance(default, int)} number.", hint)
    needed = option in ("steps", "batch") or (option == "rank" and room == "learn")
    if value < 0 or (value == 0 and needed and default != 0):
        raise BadOption(f"{option} is {value}, which is too small.", hint)
    return type(default)(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
