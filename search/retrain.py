"""What a full training of a pick takes from its run: network, data set, input size and seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lpsnet.data import DataSpec, native_size
from lpsnet.recipe import TrainRecipe, named_recipe, resized
from search.picks import TRAININGS, find_pick, training_folder
from search.run import read_header
from search.training_folder import CURVE, STATE

FULL_RECIPES: MappingProxyType[str, str] = MappingProxyType(
    {"cityscapes": "paper-cityscapes", "cityscapes-coarse": "paper-cityscapes", "bdd100k": "paper-bdd100k"}
)
"""The recipe of a full training by data set; where none is named, `camvid`."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """A full training of a pick.

    Args:
        architecture: text of its network.
        data: `NAME` or `NAME:PATH`.
        recipe: at the input size of the run, at which the network's latency was measured.
        recipe_name: what it is called.
        seed: of the run.
        out: folder of the training.
    """

    architecture: str
    data: str
    recipe: TrainRecipe
    recipe_name: str
    seed: int
    out: Path


def retraining(run: Path, pick: str, *, data: str = "", recipe: str = "") -> Retraining:
    """The full training of a run's pick.

    Args:
        run: folder of the run.
        pick: its name.
        data: another data set than the run's; empty for that.
        recipe: name of another recipe than the data set's; empty for that.

    Raises:
        RunError: no run, or no such pick.
        UserError: an unknown recipe, or a data set that is not as expected.
    """
    config, picked = read_header(run).config, find_pick(run, pick)
    spec = DataSpec.parse(data or config.data)
    name = recipe or FULL_RECIPES.get(spec.name, "camvid")
    chosen = named_recipe(name)
    return Retraining(
        architecture=picked.architecture,
        data=str(spec),
        recipe=resized(chosen, chosen.input_size(native_size(spec)), config.size),
        recipe_name=name,
        seed=config.seed,
        out=_out(run, picked.architecture),
    )


def _out(run: Path, architecture: str) -> Path:
    """Where the training lies, or would: outside the run's folder only where one is already; what says so may be a file of others."""
    told = training_folder(run, architecture)
    there = any((told / name).is_file() for name in (STATE, CURVE))
    return told if there or told.resolve().is_relative_to(run.resolve()) else run / TRAININGS / architecture
