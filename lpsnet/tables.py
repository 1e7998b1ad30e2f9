"""Read-only tables of named rows, to which other packages add rows by entry point.

    BLOCKS = Table("lps_search.blocks", {...}, BlockKind)

Nothing is loaded before its row is asked for. What stands in a table is not replaced by a row of another package. `docs/extending.md`
has an example of each table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from lpsnet.errors import UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Row = TypeVar("Row")

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Table(Mapping[str, Row]):
    """Rows by name: a package's own in the order given, then those of other packages in the order of their names.

    Args:
        group: of entry points, each of which names a row under the row's name.
        own: the rows of this package.
        kind: what a row must be, a class or a protocol that can be checked at run time.

    Raises:
        UserError: when a row of another package is asked for that cannot be loaded, is something else, or is there twice.
    """

    def __init__(self, group: str, own: Mapping[str, Row], kind: type) -> None:
        self._group, self._own, self._kind = group, dict(own), kind

    def __getitem__(self, name: str) -> Row:
        if name in self._own:
            return self._own[name]
        if name not in added(self._group):
            raise KeyError(name)
        return self._loaded(name)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in added(self._group)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in added(self._group) if name not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _loaded(self, name: str) -> Row:
        entry, *others = (entry for entry in _offered(self._group, tuple(sys.path)) if entry.name == name)
        if others:
            raise UserError(f"two packages offer {name!r} in {self._group}: {entry.value} and {others[0].value}; uninstall one of them")
        try:
            row: Row = entry.load()
        except Exception as error:  # code of another package: anything may go wrong there
            raise UserError(f"{name!r} of {entry.value} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(row, self._kind):
            raise UserError(f"{name!r} of {entry.value} must be a {self._kind.__name__}, found a {type(row).__name__}")
        return row


def added(group: str) -> tuple[str, ...]:
    """Names of the rows that other packages add by a group of entry points, sorted.

    Raises:
        UserError: a name that no text could hold.
    """
    names = tuple(sorted({entry.name for entry in _offered(group, tuple(sys.path))}))
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"entry point {name!r} of {group}: a name is made of lower-case letters, digits and single hyphens")
    return names


@cache
def _offered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group; `path` is where Python looks for packages."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))
