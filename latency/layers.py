"""The layers a network is made of, read off the module itself, and tables of their latencies on a device.

Works for any module; knows nothing of LPS-Net. What a layer costs inside a network differs from what it costs alone
(fusion, layout, launch), which `predict.py` corrects.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.files import replace_file
from latency.measure import measure_steady

if TYPE_CHECKING:
    from torch import nn

    from latency.store import Store

MOST_ROWS, LARGEST = 4096, 1_000_000
"""Of a table that is read: the splines over its rows take memory by the square of their number, and no layer has larger numbers."""

STACK = 4
"""Equal layers timed in a row where input and output have the same shape, so that entry and exit count less."""


@dataclass(frozen=True, order=True)
class Conv:
    """A square convolution with ReLU: channels in and out, input height and width in pixels, stride, kernel, groups."""

    channels_in: int
    channels_out: int
    height: int
    width: int
    stride: int = 1
    kernel: int = 3
    groups: int = 1

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        outputs = -(-self.height // self.stride) * -(-self.width // self.stride) * self.channels_out
        return outputs * self.kernel**2 * self.channels_in // self.groups

    @property
    def depth(self) -> int:
        """Layers in a row in the module that is timed."""
        return STACK if self.stride == 1 and self.channels_in == self.channels_out else 1

    def __str__(self) -> str:
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        return f"conv{self.kernel}x{self.kernel} {self.channels_in}-{self.channels_out} stride {self.stride}{groups}"


@dataclass(frozen=True)
class Layers:
    """What one image passes through: convolutions, and the output elements of resizes and of sums and joins."""

    convs: tuple[Conv, ...]
    resized: int
    moved: int
    operations: int


@dataclass(frozen=True)
class LayerRow:
    """A convolution with its latency, milliseconds a layer, and the verdict on its samples."""

    conv: Conv
    latency_ms: float
    stable: bool


def layers_of(module: nn.Module, size: tuple[int, int], channels: int = 3) -> Layers:
    """Record what a module does with one image (1, channels, *size), without computing it.

    The module must live on the meta device; grouped and rectangular convolutions other than square are read by their height.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    convs: list[Conv] = []
    elements = {"resized": 0, "moved": 0}
    resizes: dict[tuple[int, Any], Any] = {}  # holds what was resized, so that no other tensor gets its id
    aten = torch.ops.aten
    kinds = {aten.upsample_bilinear2d: "resized", aten.add: "moved", aten.add_: "moved", aten.cat: "moved"}

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
            result = func(*args, **(kwargs or {}))
            packet = func.overloadpacket
            if packet is aten.convolution:
                image, weight, stride, groups = args[0], args[1], args[3], args[8]
                convs.append(Conv(image.shape[1], weight.shape[0], image.shape[2], image.shape[3], stride[0], weight.shape[2], groups))
            elif packet is aten.upsample_bilinear2d and (id(args[0]), result.shape) in resizes:
                return result  # a runtime computes the same resize once
            elif packet in kinds:
                resizes[id(args[0]), result.shape] = args[0]
                elements[kinds[packet]] += result.numel()
            else:
                return result
            self.operations += 1
            return result

    with torch.no_grad(), Recorder() as recorder:  # type: ignore[no-untyped-call]
        module(torch.empty(1, channels, *size, device="meta"))
    return Layers(tuple(convs), elements["resized"], elements["moved"], recorder.operations)


def measure_layers(
    convs: Iterable[Conv],
    *,
    store: Store,
    on_row: Callable[[LayerRow], None] = lambda row: None,
    **conditions: Any,
) -> list[LayerRow]:
    """Measure each convolution, again while it is unstable; what the store knows is not measured again.

    Args:
        convs: of the table.
        store: where each measurement is kept.
        on_row: told of each row as it is known.
        conditions: backend, device, threads, plan, precision, as `latency.measure` takes them.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: a layer cannot be built or run.
    """
    rows = []
    for conv in convs:
        found = measure_steady(
            stack(conv),
            size=(conv.height, conv.width),
            channels=conv.channels_in,
            boundary="logits",
            subject=f"{conv.depth} x ({conv}, ReLU)",
            store=store,
            **conditions,
        )
        rows.append(LayerRow(conv, found.latency_ms / conv.depth, found.verdict().stable))
        on_row(rows[-1])
    return rows


def stack(conv: Conv) -> nn.Module:
    """The module that is timed for a convolution."""
    from torch import nn

    layers: list[nn.Module] = []
    for _ in range(conv.depth):
        padding = conv.kernel // 2
        layers += [nn.Conv2d(conv.channels_in, conv.channels_out, conv.kernel, conv.stride, padding, groups=conv.groups), nn.ReLU()]
    return nn.Sequential(*layers)


def write_table(path: Path, rows: Iterable[LayerRow]) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(field.name for field in fields(Conv)), "latency_ms", "stable"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(row.conv), "latency_ms": f"{row.latency_ms:.6g}", "stable": row.stable} for row in rows)
    replace_file(path, text.getvalue().encode())


def _truth(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(f"stable must be True or False, got {text!r}")
    return text == "True"


def read_table(path: Path) -> list[LayerRow]:
    """The inverse of `write_table`.

    Raises:
        ValueError: the file is no layer table.
    """
    names = [field.name for field in fields(Conv)]
    try:
        found = list(csv.DictReader(path.read_text().splitlines()))
        rows = [LayerRow(Conv(**{n: int(row[n]) for n in names}), float(row["latency_ms"]), _truth(row["stable"])) for row in found]
        if len(rows) > MOST_ROWS:
            raise ValueError(f"it has {len(rows)} rows, more than {MOST_ROWS}")
        for row in rows:
            if not 0 < row.latency_ms < math.inf:
                raise ValueError(f"{row.conv} has a latency of {row.latency_ms} ms")
            if not all(1 <= value <= LARGEST for value in astuple(row.conv)) or row.conv.channels_in % row.conv.groups:
                raise ValueError(f"{row.conv} on {row.conv.height}x{row.conv.width} is no convolution")
        return rows
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no layer table: {error}") from error
