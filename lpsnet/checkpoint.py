"""Networks on disk: safetensors with everything needed to use them inside, and a reader of the authors' `.pth` files.

Nothing is executed from a file: safetensors holds tensors and text, and `.pth` files are read with `weights_only`.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from lpsnet.architecture import NAMED, Architecture
from lpsnet.data import MOST_CLASSES
from lpsnet.data.normalisation import MEAN, STD
from lpsnet.metadata import FORMAT
from lpsnet.metadata import Metadata as Metadata
from lpsnet.tensors import CheckpointError as CheckpointError
from lpsnet.tensors import check_tensors, read_pickle, read_safetensors
from lpsnet.zoo import Network, SegmentationNetwork, build, canonical, for_classes, least_parameters, lps_net

_METADATA_KEY = "lps_net"

SMALL, SMALL_LAYERS = 20_000_000, 2_000
"""Parameters and layers up to which a network is built whatever its file holds, so that a message can tell what differs."""

_RELEASED_PREFIXES = {1: ("net.",), 2: ("netH.", "netL.")}
"""Key prefix of each path in the authors' files, by number of paths; from three on they are numbered."""


TRAIN_ONLY = "-train"
"""What follows the name of a shipped network that was trained on the train split alone."""

_SHIPPED = {f"{name}{kind}".lower(): f"{name}{kind}" for name in NAMED for kind in ("", TRAIN_ONLY)}


def save(
    path: str | Path,
    network: Network,
    *,
    class_names: tuple[str, ...],
    input_size: tuple[int, int],
    recipe: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    colours: tuple[tuple[int, int, int], ...] = (),
    licence: str = "",
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
    max_bytes: int | None = None,
) -> list[Path]:
    """Write a network to `path`, whole or not at all; returns the files.

    Args:
        path: of the checkpoint.
        network: in any form.
        class_names: one a class.
        input_size: (height, width) it was trained for.
        recipe: how it was trained.
        metrics: its scores.
        colours: RGB of each class.
        licence: of the data it was trained on.
        provenance: where it comes from.
        half: keep the weights in half precision.
        max_bytes: largest file; what does not fit goes to files beside it, `NAME-2-of-3.safetensors` and so on.

    Raises:
        CheckpointError: the number of names or colours is not the number of classes, a tensor is larger than `max_bytes`, or the
            path cannot be written.
    """
    metadata = _description(network, class_names, input_size, colours)
    metadata |= {"recipe": dict(recipe or {}), "metrics": dict(metrics or {}), "licence": licence, "provenance": dict(provenance or {})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    path = Path(path)
    parts = _parts(tensors, max_bytes)
    files = [path, *(path.with_name(f"{path.stem}-{number}-of-{len(parts)}{path.suffix}") for number in range(2, len(parts) + 1))]
    if len(files) > 1:
        metadata["more_files"] = [file.name for file in files[1:]]
    for file, part in zip(files[1:], parts[1:], strict=True):
        write_atomic(file, safetensors_bytes(part))
    write_atomic(path, safetensors_bytes(parts[0], {_METADATA_KEY: json.dumps(metadata)}))
    return files


def _description(
    network: SegmentationNetwork, class_names: tuple[str, ...], input_size: tuple[int, int], colours: tuple[tuple[int, int, int], ...]
) -> dict[str, Any]:
    for what, given in (("class names", class_names), ("colours", colours or class_names)):
        if len(given) != network.num_classes:
            raise CheckpointError(f"{len(given)} {what} for a network of {network.num_classes} classes")
    return {
        "format": FORMAT,
        "architecture": network.name,
        "class_names": list(class_names),
        "input_size": list(input_size),
        "branches": network.branches,
        "deployed": network.deployed,
        "colours": [list(colour) for colour in colours],
        "mean": list(MEAN),
        "std": list(STD),
    }


_ROOM = 64 * 1024
"""Bytes of a file left to names and description."""


def _parts(tensors: dict[str, Tensor], max_bytes: int | None) -> list[dict[str, Tensor]]:
    """The tensors in groups that fit a file each, in order."""
    parts: list[dict[str, Tensor]] = [{}]
    room = limit = math.inf if max_bytes is None else max_bytes - _ROOM
    for name, tensor in tensors.items():
        if tensor.nbytes > limit:
            raise CheckpointError(f"{name} alone takes {tensor.nbytes} bytes, more than fit a file of {max_bytes}")
        if tensor.nbytes > room:
            parts.append({})
            room = limit
        parts[-1][name] = tensor
        room -= tensor.nbytes
    return parts


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, also when the process is killed.

    Raises:
        CheckpointError: the path cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load(source: str | Path, architecture: Architecture | str | None = None, *, num_classes: int | None = None) -> Network:
    """A network with its weights, in eval mode.

    Args:
        source: a checkpoint written by `save`; a `.pth` file of the authors, which needs `architecture`; or the name of
            a shipped network, such as `LPS-Net-M`, or `LPS-Net-M-train` for the one that has not seen the validation split.
        architecture: what the file must hold, where that is known.
        num_classes: for fine-tuning on other classes: where it differs from the file's, every weight that fits is taken over,
            the others, such as an LPS-Net's head, are new and random, and a warning says so.

    Raises:
        CheckpointError: no such file or shipped network, a damaged file, or another network than expected; the message
            says what was expected and what was found.
    """
    expected = None if architecture is None else canonical(architecture)
    path = Path(source)
    if not path.exists() and (name := _SHIPPED.get(str(source).lower())):
        path, named = _shipped(name), canonical(name.removesuffix(TRAIN_ONLY))
        if expected not in (None, named):
            raise CheckpointError(f"{source} is {named}, expected {expected}")
        expected = named
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give a .safetensors file, a .pth file, or one of {', '.join(NAMED)}")
    if path.suffix.lower() in (".onnx", ".engine"):
        raise CheckpointError(f"{path} is a graph for deployment, not a checkpoint; lps-search predict takes it")
    if path.suffix == ".pth":
        if expected is None:
            raise CheckpointError(
                f"{path} does not say its architecture; pass it, for example architecture='LPS-Net-S', "
                "on the command line --architecture LPS-Net-S"
            )
        return _for_classes(_load_released(path, expected), num_classes, path)
    metadata, tensors = _read(path)
    found = canonical(metadata.architecture)
    if expected is not None and found != expected:
        raise CheckpointError(f"{path} holds {found}, expected {expected}")
    _check_room(found, len(metadata.class_names), tensors, path)
    network = build(found, len(metadata.class_names), branches=metadata.branches, deployed=metadata.deployed)
    return _for_classes(_fill(network, tensors, path), num_classes, path)


def _for_classes(network: Network, num_classes: int | None, path: Path) -> Network:
    if num_classes in (None, network.num_classes):
        return network
    if not isinstance(num_classes, int) or not 1 <= num_classes <= MOST_CLASSES:
        raise CheckpointError(f"num_classes must be a whole number from 1 to {MOST_CLASSES}, got {num_classes!r}")
    changed, new = for_classes(network, num_classes)
    head = all(name.startswith("head.") for name in new)
    what = f"the head for {num_classes} is" if head else f"{_some(new)} for {num_classes} are"
    warnings.warn(f"{path} has {network.num_classes} classes: {what} new and must be trained", stacklevel=3)
    return changed


def read_metadata(path: str | Path) -> Metadata:
    """What a checkpoint written by `save` says of itself. Raises `CheckpointError` as `load` does."""
    return _read(Path(path))[0]


def read_description(source: str | Path) -> Metadata | None:
    """What a checkpoint file, or a shipped network of that name, says of itself; None for a `.pth` file, which says nothing."""
    path = Path(source)
    if not path.exists() and (name := _SHIPPED.get(str(source).lower())):
        path = _shipped(name)
    return None if path.suffix == ".pth" else read_metadata(path)


def is_shipped(name: str) -> bool:
    """Whether a text names a shipped network whose checkpoint is here."""
    known = _SHIPPED.get(name.lower())
    return known is not None and (checkpoint_folder() / f"{known}.safetensors").is_file()


def holds_deployed(source: str | Path) -> bool:
    """Whether a checkpoint, or a shipped network, has the deployed form. Raises `CheckpointError` as `load` does."""
    path = Path(source)
    if not path.exists() or path.suffix == ".pth":
        found = read_description(source)
        return found is None or found.deployed
    return read_safetensors(path, _METADATA_KEY)[0] is not None and read_metadata(path).deployed


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, whatever network they are of. Raises `CheckpointError` as `load` does."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    text, tensors = read_safetensors(path, _METADATA_KEY)
    return _read(path)[1] if text else tensors


def checkpoint_folder() -> Path:
    """Where shipped checkpoints lie: `$LPS_SEARCH_CHECKPOINTS`, else `results/checkpoints` of a checkout."""
    named = os.environ.get("LPS_SEARCH_CHECKPOINTS")
    return Path(named) if named else Path(__file__).resolve().parents[1] / "results" / "checkpoints"


def _shipped(name: str) -> Path:
    path = checkpoint_folder() / f"{name}.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint of {name} at {path}; train one with lps-search train {name} --out FOLDER, name a folder that holds one by "
            "LPS_SEARCH_CHECKPOINTS, have one from the Hub by lpsnet.hub.HubNetwork.from_pretrained, "
            f"or read a released file with load('{name}.pth', architecture='{name}')"
        )
    return path


def _read(path: Path) -> tuple[Metadata, dict[str, Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    text, tensors = read_safetensors(path, _METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file without the description that lpsnet.save writes")
    try:
        values = json.loads(text)
        more = list(dict.fromkeys(str(name) for name in values.pop("more_files", [])))
        metadata = Metadata.from_dict(values)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description is not of format {FORMAT}: {error}") from error
    for name in more:
        if Path(name).name != name:  # a description may name its neighbours, nothing else
            raise CheckpointError(f"{path}: its description names {name!r}, which is no file beside it")
        beside = path.with_name(name)
        if not beside.is_file():
            raise CheckpointError(f"{path} is incomplete: {beside} is missing")
        tensors |= read_safetensors(beside, _METADATA_KEY)[1]
    return metadata, tensors


def _load_released(path: Path, name: str) -> Network:
    """Read a `.pth` file in the authors' key layout, deployed form. Raises `ArchitectureError` for a comparison network."""
    architecture = lps_net(name, f"{path}, a file in the layout of LPS-Net's authors,")
    state = read_pickle(path)
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a table of tensors by name")
    check_tensors(state, path)
    head = state.get("head.weight")
    if head is None or head.ndim != 4 or not 1 <= len(head) <= MOST_CLASSES:
        shape = "none" if head is None else f"one of shape {list(head.shape)}"
        raise CheckpointError(
            f"{path} does not fit {architecture}: head.weight must be (classes, channels, 1, 1), found {shape} among {_some(state)}"
        )
    _check_room(str(architecture), len(head), state, path)
    network = build(architecture, len(head), deployed=True)
    count = architecture.num_paths
    prefixes = _RELEASED_PREFIXES.get(count, tuple(f"net{number + 1}." for number in range(count)))
    return _fill(network, state, path, {f"paths.{index}.": prefix for index, prefix in enumerate(prefixes)})


def _check_room(network: str, num_classes: int, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a network that is larger than the file: a text of a few bytes names one that no memory holds."""
    held = sum(tensor.numel() for tensor in tensors.values())
    parameters = least_parameters(network, num_classes, max(len(tensors), SMALL_LAYERS))
    if parameters is None or parameters > max(held, SMALL):
        raise CheckpointError(f"{path} does not fit {network}: it holds {held} numbers in {len(tensors)} weights, too few for that network")


def _fill(network: Network, tensors: Mapping[str, Tensor], path: Path, prefixes: Mapping[str, str] = MappingProxyType({})) -> Network:
    """Load the file's tensors, which carry other prefixes than the network's where `prefixes` says so."""

    def in_file(name: str) -> str:
        for ours, theirs in prefixes.items():
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    wanted = {in_file(name): (name, tensor) for name, tensor in network.state_dict().items()}
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{key} {list(tensors[key].shape)} instead of {list(wanted[key][1].shape)}"
        for key in sorted(wanted.keys() & tensors.keys())
        if tensors[key].shape != wanted[key][1].shape
    ]
    for what, names in (("lacks", missing), ("has too many weights,", extra), ("has other shapes,", shapes)):
        if names:
            raise CheckpointError(f"{path} does not fit {network.name}: it {what} {_some(names)}")
    check_tensors({key: tensors[key] for key in wanted}, path)
    network.load_state_dict({name: tensors[key].to(own.dtype) for key, (name, own) in wanted.items()})
    return network.eval()


def _some(names: Any) -> str:
    listed = [re.sub(r"\s+", " ", str(name)) for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
