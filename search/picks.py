"""The picks of a run, remembered in its folder: `picks.json` names networks of the family, and where they were trained in full.

One writer at a time is expected, a person; the file is written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency.told import check_fields, is_shown
from lpsnet.architecture import Architecture
from lpsnet.errors import UserError
from search.family import check_name
from search.run import RunError, read_json, write_json
from search.step import Step

FILE, FORMAT, TRAININGS = "picks.json", 1, "trainings"


@dataclass(frozen=True, kw_only=True)
class Picked:
    """A pick as it was made.

    Args:
        step: of the chain.
        architecture: text of its network.
        why: what was asked for.
        boundary: of the latency.
        latency_ms: None where it was not known.
        miou_percent: by the search's short training.
    """

    step: int
    architecture: str
    why: str
    boundary: str
    latency_ms: float | None
    miou_percent: float


@dataclass(frozen=True, kw_only=True)
class Picks:
    """All picks of a run by name, and by architecture the folder of its full training, relative to the run's where it lies within."""

    picked: dict[str, Picked] = field(default_factory=dict)
    trainings: dict[str, str] = field(default_factory=dict)


def read_picks(run: Path) -> Picks:
    """The picks of the run in a folder, none where nothing was picked.

    Raises:
        RunError: the file is damaged.
    """
    path = run / FILE
    if not path.exists():
        return Picks()
    values = read_json(path)
    try:
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, expected {FORMAT}")
        picked = {check_name(name): _picked(dict(fields)) for name, fields in values["picked"].items()}
        return Picks(picked=picked, trainings={str(Architecture.parse(text)): _place(where) for text, where in values["trainings"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path} does not hold picks: {error}; move it away and pick again") from error


def _place(where: object) -> str:
    """A folder of a training: below the run's, or a whole path."""
    if not is_shown(where) or ".." in Path(str(where)).parts:
        raise ValueError(f"{where!r} is no folder of a training")
    return str(where)


def _picked(fields: dict[str, Any]) -> Picked:
    found = Picked(**{**fields, "architecture": str(Architecture.parse(fields["architecture"]))})
    check_fields(found)
    return found


def write_picks(run: Path, picks: Picks) -> None:
    """Keep picks. Raises `RunError` where the folder cannot be written."""
    write_json(run / FILE, {"format": FORMAT, **dataclasses.asdict(picks)})


def find_pick(run: Path, name: str) -> Picked:
    """The pick of a name.

    Raises:
        RunError: there is none; the message says which there are and how to make one.
    """
    picked = read_picks(run).picked
    if name not in picked:
        there = f"there are: {', '.join(picked)}" if picked else "nothing is picked yet"
        raise RunError(f"{run} has no pick {name!r}; {there}; lps-search family {run} --pick {name}=STEP makes it")
    return picked[name]


def check_chain(run: Path, steps: Sequence[Step], picks: Picks) -> None:
    """Raise `RunError` where a pick is no longer of the chain, because the run was measured anew."""
    for name, pick in picks.picked.items():
        if why := why_stale(steps, pick.step, pick.architecture):
            raise RunError(f"pick {name} of {run} {why}")


def why_stale(steps: Sequence[Step], step: int, architecture: str) -> str:
    """What to tell of a pick that is no longer of the chain, because the run was measured anew; else empty."""
    found = str(steps[step].chosen.architecture) if 0 <= step < len(steps) else "not decided"
    return "" if found == architecture else f"was {architecture} of step {step}, which is now {found}; pick it again"


def training_folder(run: Path, architecture: str) -> Path:
    """Where the full training of a network lies, or would."""
    told = read_picks(run).trainings.get(architecture)
    return run / (told or Path(TRAININGS) / architecture)  # an absolute path stands for itself


def remember_training(run: Path, architecture: str, out: Path) -> None:
    """Keep where a network was trained in full. Raises `RunError`."""
    inside = out.resolve().is_relative_to(run.resolve())
    where = os.path.relpath(out.resolve(), run.resolve()) if inside else str(out.resolve())
    picks = read_picks(run)
    write_picks(run, dataclasses.replace(picks, trainings={**picks.trainings, architecture: where}))


def check_remembered(names: list[str], picks: Picks, run: Path) -> list[str]:
    """The names asked for, or all there are. Raises `UserError` where one is unknown or there are none."""
    if not picks.picked:
        raise UserError(f"{run} has no picks; make some, for example: lps-search family {run} --pick S=1 M=2")
    for name in names:
        find_pick(run, name)
    return names or list(picks.picked)
