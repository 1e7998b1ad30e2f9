"""The architecture of a network as a value: blocks a stage (B), channels a stage (C), input scale a path (R).

An `Architecture` is frozen and canonical: two spellings of the same network are equal, hash alike and print alike.
Its text, `B1-3-3-10-10_C8-24-48-96-96_R6-2`, is the store key, the file name, the CLI argument and the checkpoint metadata.
Nothing here knows torch, bounds of a search, or what a network costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from lpsnet.tables import added

STAGES = 5
EIGHTHS = 8
"""Scales are whole eighths of the input size, so that equality of architectures is exact."""

LARGEST = 999_999
"""No number of an architecture may be larger, so that its text stays readable and can be read back."""

BLOCK_NAMES = ("conv3x3", "sepconv3x3", "residual", "bottleneck", "inverted-residual", "ghost", "shufflenet")
"""The blocks of the paper's Table 2."""

BLOCK_GROUP = "lps_search.blocks"
"""Group of entry points by which other packages add blocks, see `lpsnet.blocks.BLOCKS`."""

INTERACTION_NAMES = ("none", "direct-a", "direct-b", "attention-a", "attention-b", "bilateral-a", "bilateral-b")
"""The interactions of the paper's Table 3, and none, its baseline."""

WEIGHTLESS_INTERACTIONS = ("none", "bilateral-b")
"""Those that only pass and add features."""

DEFAULT_BLOCK = "conv3x3"
DEFAULT_INTERACTION = "bilateral-b"

_EXAMPLE = "B1-3-3-10-10_C8-24-48-96-96_R6-2"


class ArchitectureError(ValueError):
    """A text or a tuple of numbers that describes no network."""


def block_names() -> tuple[str, ...]:
    """Every block there is, those of other packages last."""
    return (*BLOCK_NAMES, *(name for name in added(BLOCK_GROUP) if name not in (*BLOCK_NAMES, *INTERACTION_NAMES)))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network's (B, C, R) and its block and interaction (paper section 3.3).

    Args:
        depths: B, blocks of each of the five stages, each at least 1; the same for every path.
        widths: C, output channels of each of the five stages, each at least 1; the same for every path.
        scales: R in eighths of the input size, one a path. Zeros (absent paths) are dropped and the rest sorted
            from large to small, so any order may be given.
        block: one of `block_names()`.
        interaction: one of `INTERACTION_NAMES`.

    Raises:
        ArchitectureError: a wrong number of stages, a number below its least value, no path, or an unknown name.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    scales: tuple[int, ...]
    block: str = DEFAULT_BLOCK
    interaction: str = DEFAULT_INTERACTION

    def __post_init__(self) -> None:
        depths, widths, scales = _whole("B", self.depths), _whole("C", self.widths), _whole("R", self.scales)
        for letter, values, what in (("B", depths, "blocks"), ("C", widths, "channels")):
            if len(values) != STAGES:
                raise ArchitectureError(f"{letter} needs {STAGES} numbers ({what} of each stage), got {len(values)}: {list(values)}")
            if min(values) < 1:
                raise ArchitectureError(f"{letter} must be at least 1 everywhere, got {list(values)}")
        if scales and min(scales) < 0:
            raise ArchitectureError(f"R must not be negative, got {list(scales)}")
        present = tuple(sorted((scale for scale in scales if scale), reverse=True))
        if not present:
            raise ArchitectureError(f"R needs at least one scale above 0 (in eighths), got {list(scales)}")
        if self.block not in BLOCK_NAMES:  # those of other packages are looked for only where they may be meant
            _known("block", self.block, block_names())
        _known("interaction", self.interaction, INTERACTION_NAMES)
        object.__setattr__(self, "depths", depths)
        object.__setattr__(self, "widths", widths)
        object.__setattr__(self, "scales", present)

    @property
    def num_paths(self) -> int:
        """Number of paths, N in the paper."""
        return len(self.scales)

    def require_plain(self, what: str) -> None:
        """Refuse a network whose weights are not all those of 3x3 convolutions and the head, for `what` knows no others.

        Raises:
            ArchitectureError: it is such a network.
        """
        if self.block != DEFAULT_BLOCK or self.interaction not in WEIGHTLESS_INTERACTIONS:
            allowed = " or ".join(WEIGHTLESS_INTERACTIONS)
            raise ArchitectureError(f"{what} for {DEFAULT_BLOCK} blocks only, with the interaction {allowed}; got {self}")

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read an architecture from its text or from a name in `NAMED`; the inverse of `str`.

        Raises:
            ArchitectureError: the text is neither; the message gives the position of the first wrong character.
        """
        named = _NAMES_FOLDED.get(text.strip().casefold())
        return named if named is not None else _parse(cls, text.strip())

    def __str__(self) -> str:
        parts = [letter + "-".join(map(str, values)) for letter, values in zip("BCR", (self.depths, self.widths, self.scales), strict=True)]
        if self.block != DEFAULT_BLOCK:
            parts.append(self.block)
        if self.interaction != DEFAULT_INTERACTION:
            parts.append(self.interaction)
        return "_".join(parts)


def _whole(letter: str, values: Iterable[int]) -> tuple[int, ...]:
    numbers = tuple(values)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise ArchitectureError(f"{letter} needs whole numbers, got {number!r}")
        if number > LARGEST:
            raise ArchitectureError(f"{letter} must be at most {LARGEST}, got {number}")
    return numbers


def _known(kind: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise ArchitectureError(f"unknown {kind} {name!r}; there are: {', '.join(names)}")


def _parse(cls: type[Architecture], text: str) -> Architecture:
    def refuse(position: int, expected: str) -> ArchitectureError:
        found = repr(text[position]) if position < len(text) else "the end"
        return ArchitectureError(
            f"architecture {text!r}: at position {position + 1} expected {expected}, found {found}; "
            f"write it like {_EXAMPLE}, or one of {', '.join(NAMED)}"
        )

    numbers: list[tuple[int, ...]] = []
    position = 0
    for letter in "BCR":
        lead = letter if letter == "B" else f"_{letter}"
        for character in lead:
            if not text.startswith(character, position):
                raise refuse(position, repr(character))
            position += 1
        values: list[int] = []
        while True:
            digits = re.compile(rf"[0-9]{{1,{len(str(LARGEST))}}}").match(text, position)
            if digits is None:
                raise refuse(position, "a whole number")
            values.append(int(digits[0]))
            position = digits.end()
            if (letter != "R" and len(values) == STAGES) or not text.startswith("-", position):
                break
            position += 1
        if letter != "R" and len(values) < STAGES:
            raise refuse(position, f"'-' and a number for each of the {STAGES} stages of {letter}")
        numbers.append(tuple(values))
    extras = {"block": DEFAULT_BLOCK, "interaction": DEFAULT_INTERACTION}
    for kind, names in (("block", block_names()), ("interaction", INTERACTION_NAMES)) if position < len(text) else ():
        token = re.compile(r"_([a-z0-9-]+)").match(text, position)
        if token is not None and token[1] in names:
            extras[kind] = token[1]
            position = token.end()
    if position != len(text):
        raise refuse(position, f"the end, or '_' and a block ({', '.join(block_names())}) or interaction ({', '.join(INTERACTION_NAMES)})")
    try:
        return cls(numbers[0], numbers[1], numbers[2], **extras)
    except ArchitectureError as error:
        raise ArchitectureError(f"architecture {text!r}: {error}") from None


NAMED: MappingProxyType[str, Architecture] = MappingProxyType(
    {
        "N0": Architecture((1, 1, 1, 1, 1), (4, 8, 16, 32, 32), (4,)),
        "LPS-Net-S": Architecture((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), (6, 2)),
        "LPS-Net-M": Architecture((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), (8, 2)),
        "LPS-Net-L": Architecture((1, 3, 3, 10, 10), (8, 24, 64, 160, 160), (8, 2)),
    }
)
"""The named architectures: the start of the paper's search and steps 7, 8 and 10 of its Table 4."""

_NAMES_FOLDED = MappingProxyType({name.casefold(): architecture for name, architecture in NAMED.items()})

_DEEP, _DEEPER = (1, 1, 1, 8, 8), (1, 3, 3, 10, 10)
_S = (8, 24, 48, 96, 96)

TABLE_4: tuple[Architecture, ...] = (
    NAMED["N0"],
    Architecture(_DEEP, (4, 8, 16, 32, 32), (4,)),
    Architecture(_DEEP, (4, 16, 32, 64, 64), (4,)),
    Architecture(_DEEP, _S, (4,)),
    Architecture(_DEEP, _S, (5,)),
    Architecture(_DEEPER, _S, (5,)),
    Architecture(_DEEPER, _S, (5, 2)),
    NAMED["LPS-Net-S"],
    NAMED["LPS-Net-M"],
    Architecture(_DEEPER, (8, 24, 64, 128, 128), (8, 2)),
    NAMED["LPS-Net-L"],
    Architecture(_DEEPER, (8, 24, 64, 160, 160), (9, 2)),
    Architecture(_DEEPER, (8, 24, 64, 160, 160), (11, 2)),
    Architecture(_DEEPER, (8, 32, 80, 192, 192), (11, 2)),
    Architecture(_DEEPER, (8, 32, 96, 224, 224), (11, 2)),
)
"""The chain of the paper's Table 4, by step."""
