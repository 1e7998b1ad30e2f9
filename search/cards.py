"""What is told of a checkpoint besides its weights: the model card, the confusion matrix and the learning curve as pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from lpsnet.checkpoint import CheckpointError, Metadata, read_metadata, write_atomic
from lpsnet.zoo import canonical, complexity_of
from search.files import made_by, markdown_table, new_figure, plain


def write_card(checkpoint: Path, path: Path) -> None:
    """Write the model card of a checkpoint as Markdown: what it is, how it was trained, what it scores, what it must not be used for."""
    write_atomic(path, card(checkpoint.name, read_metadata(checkpoint)).encode())


def card(file: str, told: Metadata, more: Sequence[str] = ()) -> str:
    """The text of a model card; `more` are lines that stand before its limits.

    Raises:
        CheckpointError: the description has other types than this project writes.
    """
    try:
        return _card(file, told, more)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{file}: what it says of its training and scores makes no sense: {error!r}") from error


def _card(file: str, told: Metadata, more: Sequence[str]) -> str:
    from lpsnet.architecture import NAMED

    text = canonical(told.architecture)
    name = next((name for name, known in NAMED.items() if str(known) == text), text)
    cost = complexity_of(text, len(told.class_names), told.input_size)
    where, init = told.provenance, _in_code(told.provenance.get("init"))
    splits = ", ".join(where.get("splits", ["unknown"]))
    height, width = told.input_size
    lines = [
        "---",
        "library_name: lps-search",
        "pipeline_tag: image-segmentation",
        f"license_name: {json.dumps(told.licence or 'unknown')}",
        "---",
        f"# {name}",
        "",
        f"Semantic segmentation into {len(told.class_names)} classes at {height}x{width}: `{told.architecture}`, "
        f"{cost.parameters:,} parameters, {cost.macs / 1e9:.4g} G multiply-adds to the scores.",
        "",
        "```python",
        "from lpsnet import load",
        f'network = load("{file}")',
        "```",
        "",
        f"Input: RGB / 255, less {list(told.mean)}, over {list(told.std)}, at {height}x{width}. "
        f"Classes: {plain(', '.join(told.class_names))}.",
        "",
        "## Training",
        "",
        plain(f"Data: {where.get('data', 'unknown')}, splits {splits}, seed {where.get('seed', 'unknown')}.")
        + " "
        + plain(f"Licence of the data: {told.licence or 'unknown'}.")
        + (f" Started from the weights of `{init}`." if init else ""),
        "",
        *markdown_table(["recipe", ""], [[key, value] for key, value in told.recipe.items()]),
        "",
        "## Scores on the validation split",
        "",
        *_scores(told),
        "",
        *more,
        "## Limits",
        "",
        "Trained on the data set named above only; other cameras, cities, seasons and times of day are another matter. Not for decisions "
        "on which safety hangs.",
        "",
        made_by({name: _in_code(where.get(name)) for name in ("command", "commit", "created")}),
    ]
    return "\n".join(lines) + "\n"


def _in_code(text: object) -> str:
    """A text between backquotes, or beside them: with none of its own, nor markup, nor line breaks."""
    return re.sub(r"[`<>\[\]]", "", " ".join(str(text or "").split()))


def _scores(told: Metadata) -> list[str]:
    if not told.metrics:
        return ["None: the validation split was trained on, too, or the scores are not known."]
    mean = f"mIoU {told.metrics['miou_percent']:.2f} % over {told.metrics.get('classes_scored', len(told.class_names))} classes."
    rows = zip(told.class_names, told.metrics["class_iou_percent"], strict=True)
    return [mean, "", *markdown_table(["class", "IoU %"], [[name, "-" if iou is None else f"{iou:.2f}"] for name, iou in rows])]


def write_confusion(path: Path, confusion: Tensor, names: tuple[str, ...]) -> None:
    """Draw a confusion matrix: of each labelled class, what share of its pixels was predicted as which."""
    counts = confusion.double().numpy()
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4.5, 0.55 * len(names) + 1.5)
    figure = new_figure(side + 0.8, side, dpi=110)
    axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    for row, column in np.ndindex(*share.shape):
        if share[row, column] >= 0.5:
            colour = "white" if share[row, column] > 55 else "black"
            axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=axes, label="% of the labelled class", shrink=0.8)
    figure.savefig(path)


def write_curve_figure(path: Path, rows: list[dict[str, str]]) -> None:
    """Draw a learning curve: loss, and validation mIoU where it was taken."""
    figure = new_figure(7, 4, dpi=110)
    axes = figure.subplots()
    axes.plot([int(row["iteration"]) for row in rows], [float(row["loss"]) for row in rows], color="#0072b2")
    axes.set_xlabel("iterations")
    axes.set_ylabel("loss", color="#0072b2")
    axes.grid(alpha=0.3)
    scored = [row for row in rows if row["val_miou_percent"]]
    if scored:
        right = axes.twinx()
        right.plot([int(row["iteration"]) for row in scored], [float(row["val_miou_percent"]) for row in scored], "o-", color="#d55e00")
        right.set_ylabel("validation mIoU (%)", color="#d55e00")
    figure.savefig(path)
