"""`lps-search validate-proxy`, `bench-table` and `rival`: does the search choose rightly, and better than others at equal cost?"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.errors import UserError
from lpsnet.recipe import PROXY_BATCH, PROXY_ITERATIONS
from search.cli.console import Live, parse_counts, print_table, write_rows
from search.cli.options import (
    AsJson,
    Batch,
    Changes,
    Data,
    OwnSize,
    Parallel,
    Seconds,
    StorePath,
    TrainingPrecision,
    TrainingThreads,
    data_fields,
    given_options,
    timing_plan,
)

if TYPE_CHECKING:
    from latency.store import Store
    from lpsnet.architecture import Architecture
    from search.config import SearchConfig
    from search.problem import Seen
    from search.proxy_study import ProxyStudy
    from search.rivals_live import Chain, Kept
    from search.training_table import TrainingTable

SHORT = "identity-rate2-400"
LATENCY_S = 2.0
SETTINGS = "identity-rate2-100,identity-rate2-200,identity-rate2-400,identity-200,scratch-400,plain-400,inherit-200"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("validate-proxy")(validate_proxy)
    app.command("bench-table")(bench_table)
    app.command("rival")(rival)


def validate_proxy(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, whose candidates and latencies are taken.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; trainings that are there are not repeated.")] = Path("results/proxy"),
    steps: Annotated[str, typer.Option(help="Steps of the run, such as 1,2. Default: all.")] = "",
    full: Annotated[int, typer.Option(help="Iterations of a full training.", min=1)] = 3000,
    full_seeds: Annotated[int, typer.Option(help="Full trainings of each candidate.", min=1)] = 2,
    settings: Annotated[
        str, typer.Option(help="Cheap trainings: scratch-N, identity-N, plain-N, inherit-N, -small2, -rate2, -frames25, @RUNG.")
    ] = SETTINGS,
    seeds: Annotated[int, typer.Option(help="Cheap trainings of each candidate.", min=1)] = 2,
    choose_on: Annotated[
        str, typer.Option(help="Steps to choose the default on, or none; the others judge it. Default: the first half.")
    ] = "",
    data: Annotated[str, typer.Option(help="Where the run's data set lies now. Default: where it lay.")] = "",
    precision: TrainingPrecision = "fp32",
    changes: Changes = None,
    parallel: Parallel = 2,
    threads: TrainingThreads = 0,
    report_only: Annotated[bool, typer.Option("--report-only", help="Train nothing; report what has accrued.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the candidates of a run's steps fully and cheaply, and report how each cheap training ranks them."""
    from latency.environment import available_cores
    from search.proxy_study import base_config, run_study, study_of
    from search.run import Run
    from search.runner import replay
    from search.training_table import open_table

    with Run.read(run) as opened:
        decided, config = replay(opened).steps, opened.config
    study = study_of(decided, parse_counts(steps, "--steps"), full, full_seeds, settings.split(","), seeds)
    first_half = tuple(step.number for step in study.steps[: -(-len(study.steps) // 2)])
    chooses = () if choose_on == "none" else parse_counts(choose_on, "--choose-on") or first_half
    if strange := set(chooses) - {step.number for step in study.steps}:
        raise UserError(f"--choose-on names step {min(strange)}, which is not studied; name some of --steps, or none")
    cores = threads or available_cores()
    base = base_config(config, changes or [], data=data or config.data, precision=precision, parallel=parallel, threads=cores)
    if not report_only:
        with Live() as live:
            table = run_study(study, base, out, live)
    elif (out / "trainings.csv").exists():
        table = open_table(out, base)
    else:
        raise UserError(f"{out} holds no trainings to report; leave out --report-only to train, or name another folder with --out")
    _report(study, table, chooses, out, as_json)


def _report(study: ProxyStudy, table: TrainingTable, chooses: tuple[int, ...], out: Path, as_json: bool) -> None:
    from search.figures import draw_rankings
    from search.proxy_study import default_setting, raced_rows, report_rows
    from search.run import provenance, write_json

    rows, races = report_rows(study, table), raced_rows(study, table)
    numbers = [step.number for step in study.steps]
    chosen = default_setting([row for row in rows if row["setting"] != study.full.name], races, chooses)
    told: dict[str, Any] = {"chosen": chosen, "chosen_on": list(chooses), "judged_on": [n for n in numbers if n not in chooses]}
    failed = sum(row.miou_percent is None for row in table.rows.values())
    if not rows:
        raise UserError(
            f"{out} has nothing to report: no step has all its candidates trained fully and by one of the settings "
            f"({len(table.rows)} trainings, {failed} of them failed)"
        )
    told |= {
        "trainings": len(table.rows),
        "failed": failed,
        "full_iterations": study.full.iterations,
        "rows": _without_nan(rows),
        "races": _without_nan(races),
    }
    told |= provenance()
    if races:
        write_rows(out / "races.csv", races)
    write_rows(out / "ranking.csv", rows)
    write_json(out / "summary.json", told)
    draw_rankings(rows, out / "ranking.png")
    if as_json:
        print(json.dumps(told))
        return
    shown = ("setting", "step", "candidates", "full_seeds", "seeds", "kendall", "spearman", "regret", "regret_sd", "seconds_a_training")
    lost = f", {failed} of them failed" if failed else ""
    print_table(f"{len(table.rows)} trainings{lost}; full ones of {study.full.iterations} iterations", list(shown), _cells(rows, shown, 2))
    races_shown = ("setting", "step", "plays", "regret", "regret_sd", "share_of_full")
    if races:
        print_table("races: iterations as a share of training every candidate fully", list(races_shown), _cells(races, races_shown, 2))
    if study.full_seeds < 2:
        print("a regret in seed deviations, and a choice, need two full trainings of each candidate (--full-seeds 2)")
    none = "nothing ranks there by its interval and is within one seed deviation"
    print(f"chosen on steps {', '.join(map(str, chooses))}: {chosen or none}" if chooses else "nothing is chosen here, only judged")


def _without_nan(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: what one seed alone does not tell is none."""
    return [{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()} for row in rows]


def _cells(rows: list[dict[str, Any]], names: tuple[str, ...], digits: int) -> list[list[Any]]:
    """What a table shows of rows: texts and whole numbers as they are, other numbers rounded, "-" for none."""

    def cell(value: Any) -> Any:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        return value if isinstance(value, str | int) else f"{value:.{digits}f}"

    return [[cell(row.get(name)) for name in names] for row in rows]


def bench_table(
    data: Data = "synthetic",
    out: Annotated[Path, typer.Option(help="Folder of the table; what is there is not repeated.")] = Path("results/bench"),
    networks: Annotated[int, typer.Option(help="Networks, drawn from the space up to about step 5 of Table 4.", min=1)] = 60,
    short: Annotated[str, typer.Option(help="Training every network has, named as for validate-proxy.")] = SHORT,
    seeds: Annotated[int, typer.Option(help="Of these trainings.", min=1)] = 2,
    long_networks: Annotated[int, typer.Option(help="The first so many have a long training, too.", min=0)] = 24,
    long: Annotated[str, typer.Option(help="This one.")] = "scratch-2000",
    size: OwnSize = "",
    batch: Batch = PROXY_BATCH,
    precision: TrainingPrecision = "fp32",
    changes: Changes = None,
    parallel: Parallel = 2,
    threads: TrainingThreads = 0,
    seconds: Seconds = 0.4,
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Measure and train networks of the space: a table on which searches can be replayed in seconds."""
    from latency.store import Store, default_store_path
    from search.bench import BenchPlan, agreement, make_bench
    from search.executor import current_environment
    from search.proxy_study import base_config
    from search.run import provenance, write_json
    from search.training_table import Setting

    config = base_config(
        _config(data, size, batch, threads, plan=timing_plan(seconds)), changes or [], precision=precision, parallel=parallel
    )
    plan = BenchPlan(networks=networks, short=Setting.parse(short), seeds=seeds, long_networks=long_networks, long=Setting.parse(long))
    with Live() as live:
        table = make_bench(plan, config, Store(store or default_store_path()), out, live)
    counts = {name: sum(task.setting == name for task in table.rows) for name in (short, long)}
    told = {"out": str(out), "trainings": counts, "failed": sum(row.miou_percent is None for row in table.rows.values())}
    told["short_against_long"] = agreement(table, plan)
    environment = dataclasses.asdict(current_environment(config))
    write_json(out / "summary.json", {**told, "config": config.to_dict(), "environment": environment, **provenance()})
    print(json.dumps(told) if as_json else f"{out} holds {', '.join(f'{n} trainings {name}' for name, n in counts.items())}")


def rival(
    context: typer.Context,
    sampler: Annotated[str, typer.Option(help="Searches by name, comma-separated; all for every one.")] = "all",
    bench: Annotated[Path, typer.Option(help="Folder of bench-table, on which they are replayed.")] = Path("results/bench"),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results/rivals"),
    short: Annotated[str, typer.Option(help="The table's training that is the proxy.")] = SHORT,
    seeds: Annotated[int, typer.Option(help="Replays of each.", min=1)] = 100,
    hours: Annotated[float, typer.Option(help="Budget of each in hours of training, tuning included.", min=0.0)] = 1.0,
    latency_seconds: Annotated[
        float, typer.Option(help="What a replay pays for a latency; a measurement with its export takes about two seconds.", min=0.0)
    ] = LATENCY_S,
    changes: Changes = None,
    live: Annotated[str, typer.Option(help="Search for real on this data set instead, NAME or NAME:PATH; one sampler.")] = "",
    held_against: Annotated[
        Path | None, typer.Option("--against", help="Run of expand: a live search spends as long, under its configuration.")
    ] = None,
    fresh_seeds: Annotated[
        int, typer.Option(help="With --against: measure both fronts anew in turns, and train them with so many other seeds.", min=0)
    ] = 2,
    iterations: Annotated[int, typer.Option(help="Of a live search's proxy.", min=1)] = PROXY_ITERATIONS,
    batch: Batch = PROXY_BATCH,
    seed: Annotated[int, typer.Option(help="Of a live search.")] = 0,
    precision: TrainingPrecision = "fp32",
    store: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Run the greedy rule, its variants and other searches at equal cost, and compare the fronts they find."""
    from search.samplers import SAMPLERS

    names = list(SAMPLERS) if sampler == "all" else [name.strip() for name in sampler.split(",")]
    if not 0 < hours < math.inf:
        raise UserError(f"--hours must be above 0 and finite, got {hours:g}")
    if held_against and not live:
        raise UserError(f"--against {held_against} goes with --live: a replay on the benchmark is held against no run")
    if held_against:
        _refuse_given(context, ("hours", "iterations", "batch", "changes", "precision"), held_against)
    if live:
        from search.rivals_live import chain_of

        chain = chain_of(held_against) if held_against else None
        if chain is not None:
            config = chain.config_on(live, seed)
        else:
            config = _config(live, "", batch, 0, iterations=iterations, seed=seed, changes=changes, precision=precision)
        _rival_live(names, config, chain, 3600 * hours, fresh_seeds, store, out, as_json)
        return
    _rival_replayed(names, bench, short, seeds, hours, latency_seconds, out, as_json)


def _refuse_given(context: typer.Context, names: tuple[str, ...], run: Path) -> None:
    """A live search that is held against a run is as long and under the same configuration: other wishes are refused."""
    given = given_options(context)
    for name in names:
        if name in given:
            raise UserError(f"{given[name]} does not go with --against: {run} says how long, and with which recipe")


def _rival_replayed(names: list[str], bench: Path, short: str, seeds: int, hours: float, price: float, out: Path, as_json: bool) -> None:
    """Each search over many seeds on a surrogate of the tabular benchmark."""
    from search.bench import bench_facts, surrogate
    from search.rivals import WORST_PERCENT, draw_rivals, replay, summary
    from search.run import provenance, write_json
    from search.training_table import Setting

    model = surrogate(bench, Setting.parse(short).name)
    with Live() as bar:
        rows, fronts = replay(model, names, seeds, 3600 * hours, bar, latency_s=price)
    found = summary(rows)
    write_rows(out / "curves.csv", rows)
    write_rows(out / "fronts.csv", fronts)
    write_rows(out / "summary.csv", found)
    write_json(
        out / "summary.json",
        {
            "bench": str(bench),
            **bench_facts(bench),
            "surrogate": model.quality(),
            "seeds": seeds,
            "hours": hours,
            "latency_seconds": price,
            "samplers": _without_nan(found),
            **provenance(),
        },
    )
    draw_rivals(rows, fronts, out / "curves.png")
    if as_json:
        print(json.dumps(_without_nan(found)))
        return
    if not any(row["hypervolume"] for row in rows):
        print(f"no search found a network that counts, with an mIoU above {WORST_PERCENT:g} %: --hours gives more time")
    shown = ("sampler", "hypervolume", "low", "high", "greedy_ahead", "greedy_ahead_low", "greedy_ahead_high")
    for moment in sorted({row["spent_s"] for row in found}):
        title = f"hypervolume after {moment:.0f} seconds, 95 % intervals over {seeds} seeds"
        print_table(title, list(shown), _cells([row for row in found if row["spent_s"] == moment], shown, 3))


def _rival_live(
    names: list[str],
    config: SearchConfig,
    chain: Chain | None,
    budget_s: float,
    fresh_seeds: int,
    store: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """One search for real; what it saw goes to a file of its own."""
    from latency.store import Store, default_store_path
    from lpsnet.data import DataSpec, open_split
    from search.executor import current_environment
    from search.pareto import front
    from search.rivals import check_samplers
    from search.rivals_live import Kept, run_live
    from search.run import make_folder, provenance, read_json, write_json

    if len(names) != 1:
        raise UserError(f"a live search runs one sampler, got {len(names)}; name it with --sampler")
    check_samplers(names)
    told = {"config": config.to_dict(), "environment": dataclasses.asdict(current_environment(config))}
    open_split(DataSpec.parse(config.data), "val", config.size)  # a mistake in it leaves nothing behind
    make_folder(out)
    path = out / f"live_{names[0]}_{config.seed}.csv"
    if path.with_suffix(".json").exists() and not told.items() <= read_json(path.with_suffix(".json")).items():
        raise UserError(f"{path.with_suffix('.json')} is of another search, or was made elsewhere; name another folder with --out")
    write_json(path.with_suffix(".json"), {**told, **provenance()})
    seconds, limit = (chain.spent_s, {"slowest_ms": chain.slowest_ms}) if chain else (budget_s, {})
    kept, machine = Kept(path.with_name(f"{path.stem}_answers.csv")), Store(store or default_store_path())
    with Live() as bar:
        problem = run_live(config, machine, names[0], seconds, kept, bar, **limit)
    if not problem.seen:
        raise UserError(f"{seconds:.0f} s were spent before a network was trained; --hours takes more")
    best = set(front([(one.latency_ms, one.miou_percent) for one in problem.seen]))
    rows = [{"sampler": names[0], "seed": config.seed, **_told(one), "front": number in best} for number, one in enumerate(problem.seen)]
    write_rows(path, rows)
    if not as_json:
        cells = [[row["architecture"], f"{row['latency_ms']:.3f}", f"{row['miou_percent']:.2f}"] for row in rows if row["front"]]
        print_table(f"{names[0]}: the front of {len(rows)} networks in {seconds / 3600:g} hours", ["network", "ms", "mIoU %"], cells)
    held = _held_against(chain, names[0], problem.seen, config, machine, kept, fresh_seeds, path) if chain else []
    if as_json:
        print(json.dumps({"seen": rows, "against": held}))
    elif held:
        print_table("held against the chain", list(held[0]), _cells(held, tuple(held[0]), 2))


def _held_against(
    chain: Chain, name: str, seen: list[Seen], config: SearchConfig, store: Store, kept: Kept, fresh_seeds: int, path: Path
) -> list[dict[str, Any]]:
    """The live search and the chain side by side, with tables and a picture beside `path`."""
    from search.rivals_live import against, draw_live, fresh_latencies, fresh_scores, front_of

    fronts = {"greedy": front_of(chain, chain.seen), name: front_of(chain, seen)}
    fresh: dict[Architecture, tuple[float, float]] = {}
    if fresh_seeds:
        networks = [one.architecture for found in fronts.values() for one in found]
        with Live() as bar:
            latencies = fresh_latencies(config, store, networks, kept, bar)
            scores = fresh_scores(config, store, networks, fresh_seeds, kept, bar)
        fresh = {network: (latencies[network], score) for network, score in scores.items()}
    rows = [
        {"sampler": who, **_told(one)}
        | dict(zip(("fresh_latency_ms", "fresh_miou_percent"), fresh.get(one.architecture, ()), strict=False))
        for who, found in fronts.items()
        for one in sorted(found, key=lambda one: one.latency_ms)
    ]
    held = against(chain, name, seen, fresh)
    write_rows(path.with_name(f"{path.stem}_fronts.csv"), rows)
    write_rows(path.with_name(f"{path.stem}_against.csv"), held)
    draw_live(chain, name, seen, fresh, path.with_suffix(".png"))
    return held


def _told(one: Seen) -> dict[str, Any]:
    """A network a search has seen, as a row."""
    return {**dataclasses.asdict(one), "architecture": str(one.architecture)}


def _config(
    data: str, size: str, batch: int, threads: int, *, iterations: int = PROXY_ITERATIONS, changes: list[str] | None = None, **more: Any
) -> SearchConfig:
    """The configuration of a study on a data set: latency from ONNX Runtime, the proxy's own recipe but for `changes`."""
    from latency.environment import available_cores
    from lpsnet.recipe import changed, proxy_recipe
    from search.config import SearchConfig

    proxy = changed(dataclasses.replace(proxy_recipe(iterations), batch_size=batch), changes or [])
    return SearchConfig(**data_fields(data, size), threads=threads or available_cores(), proxy=proxy, **more)
