"""What a search tells whoever watches it. The base class tells nobody."""

from __future__ import annotations

from search.step import Step


class Observer:
    """Receives progress; override what is of interest."""

    def work(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Some counted work moved on.

        Args:
            what: "steps", "latencies", "candidates", "frames", "iterations" or "validation".
            done: how many are done.
            total: how many there are, or are known of so far.
            detail: what is being worked on.
        """

    def decided(self, step: Step) -> None:
        """A step was decided (the start is step 0)."""

    def note(self, text: str) -> None:
        """Something a reader should know."""
