"""Picking from the family of a search: by step, latency, frames a second, accuracy or knee, and what another step would cost. Pure.

A member's index in the family is its step. Latencies are at whatever boundary the caller chose; one that is not known is NaN and is
never picked for its speed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lpsnet.errors import UserError
from search.pareto import front, knee
from search.step import Member

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")

Family = Sequence[Member]


@dataclass(frozen=True)
class Pick:
    """A network of a family that was chosen: what it is called, its step, and why it."""

    name: str
    step: int
    why: str


@dataclass(frozen=True)
class Move:
    """What the network of another step costs more, in milliseconds, and gains, in points of mIoU; both may be negative."""

    step: int
    cost_ms: float
    gain_percent: float


def named(text: str, option: str, kind: str) -> tuple[str, float]:
    """A name, or none, and a number, from `NAME=NUMBER` or `NUMBER`.

    Raises:
        UserError: the text is something else; the message names the option and, by `kind`, what it takes.
    """
    name, equals, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (equals and not _NAME.fullmatch(name)):
        raise UserError(f"{option} takes {kind} or NAME={kind}, the name of letters, digits, '_', '.' and '-', got {text!r}")
    return name, number


def check_name(name: str) -> str:
    """The name of a pick, which is a folder's name, too. Raises `UserError` where it is none."""
    if not _NAME.fullmatch(name):
        raise UserError(f"a pick is named by up to 40 letters, digits, '_', '.' and '-', the first a letter or digit, got {name!r}")
    return name


def at_step(family: Family, step: float, name: str = "") -> Pick:
    """The network of a step. Raises `UserError` where there is none."""
    if step != int(step) or not 0 <= step < len(family):
        raise UserError(f"the family has no step {step:g}; the nearest is step {min(max(0, round(step)), len(family) - 1)}")
    return Pick(name or f"step{int(step)}", int(step), f"the network of step {int(step)}")


def within_ms(family: Family, budget_ms: float, name: str = "") -> Pick:
    """The most accurate network that takes at most so many milliseconds. Raises `UserError` where none does."""
    _positive(budget_ms, "a budget in ms")
    return _within(family, budget_ms, name or f"{budget_ms:g}ms", f"within {budget_ms:g} ms")


def at_fps(family: Family, frames: float, name: str = "") -> Pick:
    """The most accurate network that handles so many images a second, one after the other. Raises `UserError` where none does."""
    _positive(frames, "a number of frames a second")
    return _within(family, 1e3 / frames, name or f"{frames:g}fps", f"at {frames:g} frames/s ({1e3 / frames:.4g} ms)")


def at_miou(family: Family, percent: float, name: str = "") -> Pick:
    """The fastest network with at least so much mIoU in percent. Raises `UserError` where none has it."""
    reaching = [step for step, member in enumerate(family) if member.miou_percent >= percent and not math.isnan(member.latency_ms)]
    if not reaching:
        best = max(range(len(family)), key=lambda step: family[step].miou_percent)
        raise UserError(f"no network has {percent:g} % mIoU; the nearest is step {best} with {family[best].miou_percent:.2f} %")
    step = min(reaching, key=lambda step: (family[step].latency_ms, -family[step].miou_percent, step))
    return Pick(name or f"{percent:g}miou", step, f"the fastest with {percent:g} % mIoU")


def at_knee(family: Family, name: str = "") -> Pick:
    """The network after which more latency pays least. Raises `UserError` where the front has fewer than three networks."""
    steps = _timed(family)
    found = knee([_point(family[step]) for step in steps])
    if found is None:
        count = len(fastest_for_their_miou(family))
        raise UserError(f"a knee needs three networks of which none beats another in both latency and mIoU, the family has {count}")
    return Pick(name or "knee", steps[found], "the knee of mIoU over the logarithm of latency")


def fastest_for_their_miou(family: Family) -> list[int]:
    """Steps of the front, from fast to slow."""
    steps = _timed(family)
    return [steps[index] for index in front([_point(family[step]) for step in steps])]


def moves(family: Family, step: int) -> tuple[Move | None, Move | None]:
    """What the step before and the step after would cost and gain; None where there is none."""
    here = family[step]

    def move(other: int) -> Move | None:
        if not 0 <= other < len(family):
            return None
        there = family[other]
        return Move(other, there.latency_ms - here.latency_ms, there.miou_percent - here.miou_percent)

    return move(step - 1), move(step + 1)


def _within(family: Family, budget_ms: float, name: str, why: str) -> Pick:
    fitting = [step for step in _timed(family) if family[step].latency_ms <= budget_ms]
    if not fitting:
        if not (timed := _timed(family)):
            raise UserError("no latency of the family is known at this boundary")
        fastest = min(timed, key=lambda step: family[step].latency_ms)
        raise UserError(f"no network runs {why}; the nearest is step {fastest} with {family[fastest].latency_ms:.4g} ms")
    step = max(fitting, key=lambda step: (family[step].miou_percent, -family[step].latency_ms, -step))
    return Pick(name, step, f"the most accurate {why}")


def _timed(family: Family) -> list[int]:
    return [step for step, member in enumerate(family) if not math.isnan(member.latency_ms)]


def _point(member: Member) -> tuple[float, float]:
    return member.latency_ms, member.miou_percent


def _positive(value: float, what: str) -> None:
    if value <= 0:
        raise UserError(f"{what} must be above 0, got {value:g}")
