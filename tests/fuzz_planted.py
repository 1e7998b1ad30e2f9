"""A target that kills its process and one that takes too much memory, for the test of the fuzzer; light, for each loss starts a process."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.fuzz import LIMIT_BYTES, Attempt


def deadly(folder: Path) -> Attempt:
    def attempt(rng: random.Random) -> None:
        drawn = rng.randrange(12)
        if drawn == 0:
            os._exit(9)
        if drawn == 1:
            bytearray(2 * LIMIT_BYTES)

    return attempt
