"""`lps-search train` and `evaluate`: a whole training, and what a checkpoint scores."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from search.cli.console import Live, complain, parse_size, print_table, visible
from search.cli.options import (
    DATA_HELP,
    ArchitectureOption,
    AsJson,
    Changes,
    Compiler,
    Data,
    TrainingDevice,
    TrainingPrecision,
    TrainingThreads,
    recipe_of,
    resolve_device,
)

if TYPE_CHECKING:
    from lpsnet.evaluation import Evaluation
    from search.training_run import Means, TrainPlan


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.command("pretrain")(pretrain)


def train(
    architecture: Annotated[str, typer.Argument(help="Name (lps-search networks) or text of a network; none with --from.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the training; one that was stopped is continued. Default with --from: in the run.")
    ] = None,
    from_run: Annotated[Path | None, typer.Option("--from", help="Run whose pick is trained: its data set, input size and seed.")] = None,
    pick: Annotated[str, typer.Option(help="Which pick of that run, by name (lps-search family).")] = "",
    data: Annotated[str, typer.Option(help=f"{DATA_HELP} Default: synthetic, or the run's.")] = "",
    recipe: Annotated[
        str,
        typer.Option(
            help="paper-cityscapes, strong-cityscapes, paper-bdd100k, paper-camvid or camvid, the default; with --from the data's."
        ),
    ] = "",
    changes: Changes = None,
    splits: Annotated[str, typer.Option(help="train, or train,val for a network to ship.")] = "train",
    seed: Annotated[int | None, typer.Option(help="Of weights, frame order and augmentation. Default: 0, or the run's.")] = None,
    init: Annotated[str, typer.Option(help="Checkpoint to start from: weights that fit are taken over.")] = "",
    teacher: Annotated[str, typer.Option(help="Checkpoint of a larger network to learn from, too; weigh it by --set distillation=1.")] = "",
    device: TrainingDevice = "auto",
    precision: TrainingPrecision = "fp32",
    compiler: Compiler = "off",
    threads: TrainingThreads = 0,
    save_minutes: Annotated[float, typer.Option(help="Keep the state this often.", min=0.0)] = 5.0,
    max_hours: Annotated[float | None, typer.Option(help="Pause after this many hours.", min=0.0)] = None,
    validations: Annotated[int, typer.Option(help="How often to score it on the way.", min=0)] = 5,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="On a GPU: only algorithms that repeat.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network by a recipe; killed or paused, the same command goes on where it stopped."""
    from search.picks import remember_training
    from search.training_run import Means, TrainPlan

    fields, folder = _chosen(architecture, out, from_run, pick, data=data, recipe=recipe, seed=seed, changes=changes or [])
    plan = TrainPlan(**fields, splits=tuple(part.strip() for part in splits.split(",")), init=init, teacher=teacher)
    means = Means(
        device=resolve_device(device),
        precision=precision,
        compiler=compiler,
        threads=threads,
        save_s=60 * save_minutes,
        max_hours=max_hours,
        validations=validations,
        deterministic=deterministic,
    )
    found = _trained(plan, means, folder)
    if from_run is not None:
        remember_training(from_run, plan.architecture, folder)
    _print_evaluation(found, f"{plan.architecture} on the validation split of {plan.data}", as_json)


def _chosen(
    architecture: str, out: Path | None, from_run: Path | None, pick: str, *, data: str, recipe: str, seed: int | None, changes: list[str]
) -> tuple[dict[str, Any], Path]:
    """What is trained on what, how, and where: a network by name, or a pick of a run. Raises `UserError` for neither, both, or a part."""
    from lpsnet.recipe import changed
    from search.picks import read_picks, write_picks
    from search.retrain import retraining

    if from_run is None and not pick:
        if not architecture or out is None:
            raise UserError("train takes a network and --out FOLDER, or --from RUN and --pick NAME")
        chosen = recipe_of(recipe or "camvid", changes)
        return {"architecture": architecture, "data": data or "synthetic", "recipe": chosen, "seed": seed or 0}, out
    if from_run is None or not pick or architecture:
        raise UserError("--from RUN and --pick NAME go together, and without a network")
    full = retraining(from_run, pick, data=data, recipe=recipe)
    write_picks(from_run, read_picks(from_run))  # that the training can be remembered is found before it
    folder, begin = out or full.out, full.seed if seed is None else seed
    told = f"{pick}: {full.architecture} by recipe {full.recipe_name} on {full.data}, seed {begin}, in {folder}"
    print(visible(told), file=sys.stderr)
    return {"architecture": full.architecture, "data": full.data, "recipe": changed(full.recipe, changes), "seed": begin}, folder


def _trained(plan: TrainPlan, means: Means, out: Path) -> Evaluation:
    """Train, and exit with one line where that was paused or failed."""
    from lpsnet.training import Paused, TrainingFailed
    from search.training_run import run_training

    stop = _Stop()
    with Live() as live, stop:
        try:
            return run_training(plan, means, out, live, stopped=stop.asked)
        except Paused as paused:
            told = f"paused after {paused} of {plan.recipe.iterations} iterations; the same command goes on"
            raise typer.Exit(complain(told, 130)) from None
        except TrainingFailed as failure:
            raise typer.Exit(complain(str(failure), 1)) from None


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint file, or the name of a shipped network.")],
    data: Data = "synthetic",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the network's input. Default: the checkpoint's.")] = "",
    architecture: ArchitectureOption = "",
    flip: Annotated[bool, typer.Option("--flip", help="Also the mirrored image.")] = False,
    scales: Annotated[str, typer.Option(help="Scales of the input whose predictions are averaged, such as 0.75,1,1.25.")] = "1",
    batch: Annotated[int, typer.Option(help="Images at a time; no score depends on it.", min=1)] = 1,
    device: TrainingDevice = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write scores, classes and the confusion matrix to this folder.")] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Also write full-size labelIds PNGs for Cityscapes' server to this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on a split: whole images, no tricks unless asked for."""
    from search.scoring import ScorePlan, score

    plan = ScorePlan(
        checkpoint=checkpoint,
        architecture=architecture,
        data=data,
        split=split,
        size=parse_size(size) if size else None,
        flip=flip,
        scales=parse_scales(scales),
        batch=batch,
    )
    with Live() as live:
        score(
            plan,
            resolve_device(device),
            live,
            out=out,
            submission=submission,
            on_scored=lambda found: _print_evaluation(found, f"{checkpoint} on the {split} split of {data}", as_json),
        )


def pretrain(
    architecture: Annotated[str, typer.Argument(help="Name or text of a network, one path of which is trained.")],
    data: Annotated[Path, typer.Option(help="Folder with train/CLASS/ and val/CLASS/ of images, as ImageNet's.")],
    out: Annotated[Path, typer.Option(help="The checkpoint, for lps-search train --init.")],
    epochs: Annotated[int, typer.Option(min=1)] = 90,
    batch: Annotated[int, typer.Option(help="Images an update.", min=1)] = 256,
    size: Annotated[int, typer.Option(help="Extent of the training crop in pixels.", min=32)] = 224,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.", min=1e-9, max=1e3)] = 0.1,
    seed: Annotated[int, typer.Option(help="Of weights, order and crops.", min=0, max=2**63 - 1)] = 0,
    device: TrainingDevice = "auto",
    as_json: AsJson = False,
) -> None:
    """Train one path as an image classifier, for a segmentation network to start from; the same command goes on after the last epoch."""
    from lpsnet.classifier import PretrainRecipe, save_path
    from lpsnet.classifier import pretrain as pretrain_path
    from lpsnet.errors import TrainingFailed
    from lpsnet.resume import Keeper
    from lpsnet.zoo import lps_net
    from search.run import make_folder, provenance

    if out.is_dir():
        raise UserError(f"--out names the checkpoint's file, {out} is a folder")
    make_folder(out.parent)
    recipe = PretrainRecipe(epochs=epochs, batch_size=batch, size=size, learning_rate=learning_rate, warmup_epochs=min(5.0, epochs / 10))
    parsed = lps_net(architecture, "pretrain")
    identity = {"architecture": str(parsed), "data": str(data), "recipe": dataclasses.asdict(recipe), "seed": seed}
    keeper = Keeper(out.with_name(f"{out.name}.state"), identity)
    with Live() as live:
        try:
            network, top1 = pretrain_path(
                parsed, data, recipe, seed=seed, device=resolve_device(device), keeper=keeper, on_progress=live.work
            )
        except TrainingFailed as failure:
            raise typer.Exit(complain(str(failure), 1)) from None
        except KeyboardInterrupt:
            raise typer.Exit(complain("stopped; the same command goes on after the last whole epoch", 130)) from None
    told = {"architecture": str(parsed), "top1_percent": top1, "recipe": dataclasses.asdict(recipe), "seed": seed}
    save_path(out, network, {**told, **provenance()})
    keeper.path.unlink(missing_ok=True)
    print(json.dumps({**told, "out": str(out)}) if as_json else f"{out}: {top1:.2f} % of the validation images right")


def parse_scales(text: str) -> tuple[float, ...]:
    """Read scales separated by commas. Raises `UserError`."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0.1 <= value <= 4 for value in found):
        raise UserError(f"--scales takes numbers from 0.1 to 4 separated by commas, such as 0.75,1,1.25, got {text!r}")
    return found


class _Stop:
    """Turns the first Ctrl-C or termination into a request to pause; a second one interrupts at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether somebody did."""
        return self._asked

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _print_evaluation(found: Evaluation, title: str, as_json: bool) -> None:
    scores = found.scores
    if as_json:
        told = {"boundary_iou_percent": list(found.boundary_iou_percent), "category_iou_percent": found.category_iou_percent}
        print(json.dumps({**scores.to_dict(), **told, "images": found.images}))
        return
    borders = found.boundary_iou_percent or (None,) * len(scores.class_iou_percent)
    names = found.class_names
    rows: list[list[Any]] = [
        [name, *(_percent(value) for value in values)]
        for name, *values in zip(
            names, scores.class_iou_percent, scores.class_precision_percent, scores.class_recall_percent, borders, strict=True
        )
    ]
    print_table(f"{title}: {found.images} images", ["class", "IoU %", "precision %", "recall %", "boundary IoU %"], rows)
    for name, value in found.category_iou_percent.items():
        print(f"category {name}: IoU {_percent(value)} %")
    print(f"mIoU {scores.miou_percent:.2f} % over {scores.classes_scored} of {len(names)} classes")
    others = {
        "pixel accuracy": scores.pixel_accuracy_percent,
        "mean accuracy": scores.mean_accuracy_percent,
        "Dice": scores.dice_percent,
        "frequency-weighted IoU": scores.frequency_weighted_iou_percent,
    }
    print(", ".join(f"{name} {value:.2f} %" for name, value in others.items()))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
