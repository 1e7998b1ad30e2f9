"""`lps-search expand`, `resume` and `show`: run Algorithm 1, go on with a run, look at one."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.data import data_name
from lpsnet.recipe import PROXY_BATCH, PROXY_ITERATIONS
from search.cli.console import Live, complain, parse_counts, print_table, visible
from search.cli.executors import ExecutorName, GpusPerTraining, Limits, RayAddress, RayWait, Where, open_executor
from search.cli.options import (
    AsJson,
    Backend,
    Batch,
    Boundary,
    Changes,
    Data,
    Device,
    LatencyLimit,
    Parallel,
    StorePath,
    TrainingDevice,
    TrainingPrecision,
    data_fields,
    timing_plan,
)

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.run import Run
    from search.runner import Progress
    from search.step import Step, Trial

MaxHours = Annotated[float | None, typer.Option(help="Begin nothing new after this many hours.", min=0.0)]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("expand")(expand)
    app.command("resume")(resume)
    app.command("show")(show)


def expand(
    data: Data = "synthetic",
    steps: Annotated[int, typer.Option(help="Steps to take from the start.", min=0)] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; an existing one is continued. Default: runs/NAME.")] = None,
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of training and latency. Default: the data set's own.")] = "",
    start: Annotated[str, typer.Option(help="First network: a name or a text.")] = "N0",
    backend: Backend = "ort",
    device: Device = "cpu",
    boundary: Boundary = "scores",
    threads: Annotated[int, typer.Option(help="CPU threads of runtime and training; 0 for all cores.", min=0, max=1024)] = 0,
    latency_seconds: Annotated[float, typer.Option(help="Sample each latency for at least this long.", min=0.0)] = 0.4,
    training_device: TrainingDevice = "auto",
    proxy_iterations: Annotated[int, typer.Option(help="Training iterations a candidate.", min=1)] = PROXY_ITERATIONS,
    batch: Batch = PROXY_BATCH,
    changes: Changes = None,
    rungs: Annotated[str, typer.Option(help="Score all candidates after these iterations, too, and drop the worse: 100,200.")] = "",
    seeds: Annotated[int, typer.Option(help="Most seeds that a close call is trained with.", min=1)] = 2,
    inherit: Annotated[bool, typer.Option("--inherit", help="Candidates start from their parent's weights.")] = False,
    precision: TrainingPrecision = "fp32",
    parallel: Parallel = 1,
    validation_frames: Annotated[int, typer.Option(help="Score on so many frames of the split; 0 for all.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of weights, frame order and augmentation.")] = 0,
    max_scale: Annotated[float, typer.Option(help="Largest scale of a path.")] = 2.0,
    max_width: Annotated[int, typer.Option(help="Most channels of a stage.")] = 1024,
    max_depth: Annotated[int, typer.Option(help="Most blocks of a stage.")] = 64,
    max_paths: Annotated[int, typer.Option(help="Most paths.")] = 3,
    storage: Annotated[str, typer.Option(help="Database URL of the studies. Default: a journal file in the run.")] = "",
    predictor: Annotated[Path | None, typer.Option(help="Folder of latency-predictor; only what it leaves in doubt is measured.")] = None,
    noise: Annotated[float, typer.Option(help="Latencies nearer than this share are run in turns where it matters; 0: never.")] = 0.03,
    executor: ExecutorName = "local",
    ray_address: RayAddress = "",
    gpus_per_training: GpusPerTraining = None,
    ray_wait: RayWait = None,
    store: StorePath = None,
    latency_limit: LatencyLimit = 900.0,
    max_hours: MaxHours = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be measured and trained, and for how long.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run progressive scaling (Algorithm 1): expand a tiny network step by step into a family."""
    where = Where(executor=executor, address=ray_address, gpus_per_training=gpus_per_training, wait_s=ray_wait)
    same = data_fields(data, size) | {"backend": backend, "device": device, "boundary": boundary, "seed": seed, "storage": storage}
    same |= _machine(threads, where.training_device(training_device), latency_seconds, precision, parallel) | {"steps": steps}
    same |= _training(proxy_iterations, batch, changes, rungs, seeds, inherit) | {"noise": noise, "validation_frames": validation_frames}
    config = _config(start, predictor, same, max_scale=max_scale, max_width=max_width, max_depth=max_depth, max_paths=max_paths)
    limits = Limits(latency_s=latency_limit, max_hours=max_hours, store=store)
    if dry_run:
        _dry_run(config, where, store, as_json)
    else:
        _drive(out or Path("runs") / data_name(config.data), config, where, limits, as_json, remeasure=False)


def _config(start: str, predictor: Path | None, same: dict[str, Any], **bounds: Any) -> SearchConfig:
    """What a run keeps the same."""
    from lpsnet.zoo import lps_net
    from search.config import SearchConfig
    from search.space import Bounds

    known = str(predictor.resolve()) if predictor else ""
    return SearchConfig(start=str(lps_net(start, "expand")), predictor=known, bounds=Bounds(**bounds), **same)


def _training(iterations: int, batch: int, changes: list[str] | None, rungs: str, seeds: int, inherit: bool) -> dict[str, Any]:
    """The recipe of a candidate, and how the candidates of a step race."""
    from lpsnet.recipe import changed, proxy_recipe
    from search.config import RacePlan

    proxy = changed(dataclasses.replace(proxy_recipe(iterations), batch_size=batch), changes or [])
    return {"proxy": proxy, "race": RacePlan(rungs=parse_counts(rungs, "--rungs"), seeds=seeds, inherit=inherit)}


def _machine(threads: int, training_device: str, latency_seconds: float, precision: str, parallel: int) -> dict[str, Any]:
    """What depends on this machine: its cores, where and how it trains, and how long it samples."""
    from latency.environment import available_cores

    plan = timing_plan(latency_seconds)
    training = {"training_device": training_device, "precision": precision, "parallel": parallel}
    return {**training, "threads": threads or available_cores(), "plan": plan}


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    steps: Annotated[int | None, typer.Option(help="Go on to this many steps in all.", min=0)] = None,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Measure all latencies anew in this environment.")] = False,
    executor: ExecutorName = "local",
    ray_address: RayAddress = "",
    gpus_per_training: GpusPerTraining = None,
    ray_wait: RayWait = None,
    store: StorePath = None,
    latency_limit: LatencyLimit = 900.0,
    max_hours: MaxHours = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run where it stopped: what was measured and trained is not done again."""
    from search.run import read_header

    where = Where(executor=executor, address=ray_address, gpus_per_training=gpus_per_training, wait_s=ray_wait)
    config = read_header(run).config
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    _drive(run, config, where, Limits(latency_s=latency_limit, max_hours=max_hours, store=store), as_json, remeasure=remeasure)


def show(run: Annotated[Path, typer.Argument(help="Folder of the run.")], as_json: AsJson = False) -> None:
    """Show a run's chain and all its candidates."""
    from search.report import candidates_frame, family_frame
    from search.run import Run
    from search.runner import replay

    with Run.read(run) as opened:
        progress = replay(opened)
        if as_json:
            _print_json(opened, progress)
            return
        for step in progress.steps:
            print_step(step)
        frame = family_frame(opened, progress.steps)
        columns = [name for name in frame.columns if name not in ("architecture", "weights", "weights_sha256", "warnings")]
        rows = [[_cell(value) for value in row] for row in frame[columns].itertuples(index=False)]
        print_table(f"{run}: {len(progress.steps)} networks, {len(candidates_frame(opened, progress.steps))} trained", columns, rows)
        _print_state(opened.config.steps, progress)


def _drive(out: Path, config: SearchConfig, where: Where, limits: Limits, as_json: bool, *, remeasure: bool) -> None:
    """Open the run, advance it, write the derived files, and say how it ended."""
    from search.report import weight_faults, write_report
    from search.run import Run
    from search.runner import advance

    with Live() as live, closing(open_executor(where, config, limits, live)) as executor:
        live.decided = (lambda step: None) if as_json else print_step  # type: ignore[method-assign]
        with Run.start(out, config, executor.class_names, executor.environment(), remeasure=remeasure) as run:
            try:
                progress = advance(run, executor, live, lambda so_far: write_report(run, so_far.steps), max_hours=limits.max_hours)
            except KeyboardInterrupt:
                raise typer.Exit(complain(f"stopped; go on with: lps-search resume {out}", 130)) from None
            if as_json:
                _print_json(run, progress)
            else:
                _print_state(config.steps, progress, out)
                for fault in weight_faults(run, progress.steps):
                    print(visible(f"note: {fault}"))
    if progress.stopped:
        raise typer.Exit(complain(progress.stopped, 1))


def print_step(step: Step) -> None:
    """Print a decided step: every candidate with expansion, k, latency, mIoU and slope; the chosen one stands out."""
    from search.report import sure_text
    from search.step import Failure, slope_text

    if step.parent is None:
        print(f"step 0: {step.chosen.architecture}  {step.chosen.latency_ms:.3f} ms  {step.chosen.miou_percent:.2f} mIoU")
        return
    rows = []
    for trial in step.trials:
        failed = isinstance(trial.outcome, Failure)
        gain = f"{trial.gain.percent:+.2f}" if trial.gain else "-"
        rows.append(
            [
                " = ".join(name for name, _ in trial.candidate.expansions),
                trial.candidate.k,
                str(trial.candidate.architecture),
                f"{trial.candidate.latency_ms:.3f}",
                trial.outcome.reason if isinstance(trial.outcome, Failure) else f"{trial.outcome:.2f}",
                gain,
                slope_text(trial.slope),
                "chosen" if trial is step.chosen_trial else ("failed" if failed else _spent(trial)),
            ]
        )
    title = (
        f"step {step.number}: from {step.parent.latency_ms:.3f} ms and {step.parent.miou_percent:.2f} mIoU, "
        f"latency target {step.target_ms:.3f} ms"
    )
    columns = ["expansion", "k", "network", "ms", "mIoU %", "gain", "gain/ms", ""]
    print_table(title, columns, rows, marked=step.trials.index(step.chosen_trial))
    for name, reason in step.skipped.items():
        print(visible(f"{name}: {reason}"))
    for name, text in step.excluded.items():
        print(visible(f"{name}: {text} excluded by the predictor, not measured"))
    for note in (*step.warnings, *sure_text(step), *(tie.text for tie in step.ties)):
        print(visible(f"note: {note}"))


def _spent(trial: Trial) -> str:
    """What was spent on a candidate that was not taken, where that is told."""
    seeds = f", {trial.gain.seeds} seeds" if trial.gain and trial.gain.seeds > 1 else ""
    return f"at {trial.gain.iterations} iterations{seeds}" if trial.gain and trial.gain.iterations else ""


def _print_state(wanted: int, progress: Progress, out: Path | None = None) -> None:
    taken = max(0, len(progress.steps) - 1)
    where = f"; the family, its weights and its figure are in {out}" if out is not None and progress.steps else ""
    if progress.out_of_time:
        print(visible(f"{taken} of {wanted} steps taken, then --max-hours was over{where}; go on with: lps-search resume {out}"))
    else:
        print(visible(f"{taken} of {wanted} steps taken{where}"))
    if progress.stopped and out is None:
        print(visible(f"the search stopped: {progress.stopped}"))


def _print_json(run: Run, progress: Progress) -> None:
    from search.report import candidates_frame, family_frame

    family, candidates = family_frame(run, progress.steps), candidates_frame(run, progress.steps)
    print(
        json.dumps(
            {
                "run": str(run.path),
                "steps": max(0, len(progress.steps) - 1),
                "wanted": run.config.steps,
                "stopped": progress.stopped,
                "out_of_time": progress.out_of_time,
                "family": json.loads(family.to_json(orient="records")),
                "candidates": json.loads(candidates.to_json(orient="records")),
            }
        )
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return str(value)


def _dry_run(config: SearchConfig, where: Where, store: Path | None, as_json: bool) -> None:
    """Print the plan of a search, with an estimate from a real latency and a few real iterations of its start."""
    from latency.store import Store, default_store_path
    from search.plan import plan_search

    where.require_local("--dry-run, which tries this machine,")
    with Live() as live:
        plan = plan_search(config, Store(store or default_store_path()), live)
    if as_json:
        print(json.dumps(dataclasses.asdict(plan)))
        return
    rows = [[c.operation, c.architecture, f"{c.parameters:,}", f"{c.macs_giga:.3f}"] for c in plan.children]
    print_table(f"step 1 from {config.start}: one unit of each operation", ["operation", "network", "parameters", "G MACs"], rows)
    print(f"{config.steps} steps: about {plan.latencies} latencies and {plan.trainings} trainings of {config.proxy.iterations} iterations")
    if config.race.rungs or config.race.seeds > 1:
        print("a race ends some of these trainings early, and close calls add some: neither is in the estimate")
    print(f"the start takes {plan.latency_s:.1f} s a latency and {plan.training_s:.1f} s a training here")
    print(
        f"estimated time: {plan.total_s / 60:.0f} minutes, if networks grow by {plan.growth:.2f} in cost a step (as in the paper's Table 4)"
    )
