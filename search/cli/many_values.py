"""Options that take several values in a row."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

_MANY = ("--pick", "--budget-ms", "--fps", "--miou")
_VALUE = re.compile(r"(?:[^=\s-][^=\s]*=)?[0-9.]+(?:[eE][+-]?[0-9]+)?")


class ManyValues(TyperCommand):
    """A command whose options take several values in a row: `--pick S=1 M=2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every value an option of its own, which is what the parser takes."""
        return super().parse_args(ctx, spread(args))


def spread(arguments: list[str]) -> list[str]:
    """The arguments with every value but an option's first one behind an option of its own."""
    spread_out: list[str] = []
    option, first = "", False
    for argument in arguments:
        if argument.startswith("-"):
            name, with_value, _ = argument.partition("=")
            option, first = (name if name in _MANY else ""), not with_value
        elif option and not first and _VALUE.fullmatch(argument):
            spread_out.append(option)
        else:
            option, first = (option if first else ""), False
        spread_out.append(argument)
    return spread_out
