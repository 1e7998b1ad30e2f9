"""What a file says, taken as data: JSON without what makes its reader fail otherwise, and dataclasses whose fields are of their types.

Files come from other machines and people. A `ValueError` is all that these raise, whatever a file holds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 2**63 - 1
"""Of whole numbers in a file; beyond it a float overflows and a shape means nothing."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises `ValueError`, also for nesting that is too deep and for a whole number beyond `LARGEST`."""
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except TypeError as error:  # no text at all, as a column of a database may hold
        raise ValueError(str(error)) from None


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= len(str(LARGEST)) + 1 else LARGEST + 1
    if abs(number) > LARGEST:
        raise ValueError(f"{digits[:24]}... is too large for a whole number")
    return number


def check_fields(value: Any) -> None:
    """Raise `ValueError` where a field of a dataclass holds something else than it is annotated with, as far as `_KINDS` knows it."""
    for field in dataclasses.fields(value):
        right, found = _KINDS.get(str(field.type)), getattr(value, field.name)
        if right is not None and not right(found):
            raise ValueError(f"{field.name} must be of type {field.type}, got {shortened(found)}")


def shortened(value: object, most: int = 80) -> str:
    """The value as a message shows it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or a list that holds itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else text[:most] + "..."


def is_text(value: Any) -> bool:
    """Whether it is a text that any file can hold: no half of a surrogate pair."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def is_shown(value: Any) -> bool:
    """Whether it is a text of letters that a terminal and a page show, and nothing else."""
    return isinstance(value, str) and value.isprintable()


def is_whole(value: Any) -> bool:
    """Whether it is a whole number and no truth."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number and no truth; not a number and the infinities are numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(kind: Callable[[Any], bool], count: int | None = None) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple | list) and (count is None or len(value) == count) and all(map(kind, value))


def _optional(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


def _table(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(map(is_text, value)) and all(map(kind, value.values()))


_KINDS: dict[str, Callable[[Any], bool]] = {
    "int": is_whole,
    "float": is_number,
    "bool": lambda value: isinstance(value, bool),
    "str": is_text,
    "float | None": _optional(is_number),
    "tuple[int, ...]": _all(is_whole),
    "tuple[int, int, int, int]": _all(is_whole, 4),
    "tuple[float, ...]": _all(is_number),
    "tuple[float | None, ...]": _all(_optional(is_number)),
    "tuple[str, ...]": _all(is_text),
    "dict[str, str]": _table(is_text),
    "dict[str, Any]": _table(lambda value: True),
}
