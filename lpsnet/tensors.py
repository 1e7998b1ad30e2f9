"""Tensors out of files that may come from anywhere: safetensors, and pickles read with `weights_only`. Nothing in them is executed.

A file gives no more than it holds: a pickle's archive may not be compressed, and what a tensor says of itself is checked before it is
used. Does not cover what the tensors mean (`checkpoint.py`, `resume.py`).
"""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lpsnet.errors import UserError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What weights may be kept in."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or not of the expected network."""


def read_safetensors(path: Path, key: str) -> tuple[str | None, dict[str, Tensor]]:
    """The text that the file has under `key`, None where it has none, and its tensors by name.

    Raises:
        CheckpointError: a damaged file, or another one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key)
            return text, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:  # also of a type torch lacks
        raise CheckpointError(f"{path} is damaged or no safetensors file: {' '.join(str(error).split())}") from error


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, as far as it is plain values and tensors.

    Raises:
        CheckpointError: a damaged file, one that holds more than that, or one that would take more memory than it has bytes.
    """
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of a file that is refused is no news
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file leads the reader to any error, whose text advises to execute it
        raise CheckpointError(f"{path} is damaged or holds more than weights, which is not executed ({type(error).__name__})") from error


def _check_archive(path: Path) -> None:
    """Refuse what reading would take far more than the file for. Raises `ValueError`, or whatever a damaged file leads to.

    That is an archive with compressed members, or with some that lie over one another, and a pickle with a long text: torch searches its
    own complaints in a time that grows with the square of the texts that they quote.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_OLD_PICKLES):
                _check_texts(file)
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(one.compress_type != zipfile.ZIP_STORED for one in members) or sum(one.file_size for one in members) > path.stat().st_size:
            raise ValueError("compressed")
        for one in members:
            if one.filename.endswith("data.pkl"):
                with archive.open(one) as file:
                    _check_texts(file)


_OLD_PICKLES = 5
"""At the head of a file in the format before archives; arrays follow."""

_MOST_LETTERS = 2_000
"""Of a text in a pickle."""


def _check_texts(file: IO[bytes]) -> None:
    for _, argument, _ in pickletools.genops(file):  # names what is there, executes nothing
        if isinstance(argument, str | bytes) and len(argument) > _MOST_LETTERS:
            raise ValueError("a text is too long")


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what is no plain array of numbers in memory, which no network can take over.

    Raises:
        CheckpointError: names the first tensor that is not.
    """
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or not (tensor.dtype in FLOATS or tensor.dtype == torch.int64):
            told = f"{tensor.dtype} on {tensor.device.type}".replace("torch.", "")
            raise CheckpointError(f"{path}: {' '.join(name.split())[:80]} is a tensor of {told}, expected floats or int64")
