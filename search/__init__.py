"""Progressive scaling (Algorithm 1 of LPS-Net) and the `lps-search` tool.

    from search import expand

Importing it imports neither torch nor Optuna.
"""

# `expand` is also the name of a module here, so the function is bound at once instead of on first use.
from search.config import SearchConfig
from search.expand import expand
from search.space import OPERATIONS, Bounds, Operation, expansion
from search.step import Candidate, Compare, Failure, InTurns, Measure, Member, SearchStopped, Step, Train

__all__ = [
    "OPERATIONS",
    "Bounds",
    "Candidate",
    "Compare",
    "Failure",
    "InTurns",
    "Measure",
    "Member",
    "Operation",
    "SearchConfig",
    "SearchStopped",
    "Step",
    "Train",
    "expand",
    "expansion",
]
