"""What an engine file is, whether it may run here, and which precision its layers really have."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from latency.engine import runtime_module
from latency.protocols import BackendError
from latency.told import parse_json

_TYPES = {"FP16": ("half", "fp16"), "FP32": ("float", "fp32"), "INT8": ("int8",), "BF16": ("bf16", "bfloat16")}


def read_engine(path: Path, compute_capability: str | None) -> tuple[bytes, dict[str, Any]]:
    """An engine and its description, once nothing speaks against running it here.

    Args:
        path: of the engine; its description lies beside it, with `.json` added.
        compute_capability: of the GPU here, such as "8.6"; None where there is none or it is not known.

    Raises:
        BackendError: no description, a damaged file, or one that was built for another flavour, version or GPU. The message
            says which, and how to build the right one.
    """
    beside = path.with_name(path.name + ".json")
    try:
        data, description = path.read_bytes(), parse_json(beside.read_text())
        flavour, version = str(description["flavour"]), description["version"]
        built_for = [str(one) for one in description["compute_capabilities"] or [description.get("built_on")] if one]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(f"{path} cannot be read as an engine with its description {beside.name}: {error}") from error
    again = f"build it anew: lps-search export NETWORK --engine --flavour {flavour}"
    if (found := hashlib.sha256(data).hexdigest()) != description.get("sha256"):
        raise BackendError(f"{path} is damaged: its SHA-256 is {found[:12]}..., not {str(description.get('sha256'))[:12]}...; {again}")
    here = str(runtime_module(flavour).__version__)
    if here != version:
        raise BackendError(f"{path} was built by {flavour} {version}, here is {here}; {again}")
    if compute_capability and built_for and compute_capability not in built_for:
        raise BackendError(
            f"{path} was built for compute capability {', '.join(built_for)}, this GPU has {compute_capability}; "
            f"{again} --compute-capability {compute_capability}"
        )
    return data, description


def precisions_found(layers: str) -> dict[str, int]:
    """How many layers have weights or outputs of each type, by what the engine inspector tells as JSON text.

    Empty where it tells nothing of the kind.
    """
    try:
        rows = parse_json(layers)["Layers"] or []
    except (ValueError, KeyError, TypeError):
        return {}
    return dict(Counter(kind for row in rows if isinstance(row, dict) and (kind := _type(row))))


def contradiction(precision: str, layers: str) -> str | None:
    """What the inspector's layers say against the precision asked for, None where nothing does."""
    found = precisions_found(layers)
    if precision == "fp16":
        half = 2 * found.get("FP16", 0) > sum(found.values())  # single layers may keep more, such as a resize
        return None if not found or half else f"asked for fp16, the engine inspector finds {_told(found)}"
    if reduced := {kind: count for kind, count in found.items() if kind != "FP32"}:
        return f"asked for {precision}, the engine inspector finds {_told(reduced)}"
    if precision == "fp32" and (kernels := layers.lower().count("tf32")):
        return f"asked for fp32, the engine inspector names TF32 in {kernels} places"
    return None


def _told(found: dict[str, int]) -> str:
    return ", ".join(f"{count} layers in {kind}" for kind, count in sorted(found.items()))


def _type(row: dict[str, Any]) -> str | None:
    """The type of a layer that computes: of its weights, else of its output; None of one that only moves data or gives indices."""
    if row.get("LayerType") in ("Reformat", "Constant", "NoOp", "Shuffle"):
        return None
    weights, outputs = row.get("Weights"), row.get("Outputs")
    told = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    for output in outputs if isinstance(outputs, list) else []:
        told.append(f"{output.get('Format/Datatype', '')} {output.get('Datatype', '')}" if isinstance(output, dict) else "")
    for text in told:
        words = text.lower().split()
        for kind, names in _TYPES.items():
            if any(name in words for name in names):
                return kind
    return None
