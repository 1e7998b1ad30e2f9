"""What the tests of backends and of the exported graph share: networks to time and a backend that is watched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latency.measurement import Conditions, Measurement, Verdict
from latency.protocols import Backend, Session
from lpsnet.network import LPSNet


class Small(nn.Module):
    """Two convolutions with score maps at a quarter of the size; `forward` resizes them as a segmentation network does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 4, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def scores(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(images).relu())
        return result

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.scores(images), size=images.shape[-2:], mode="bilinear", align_corners=True)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Every measurement counts as stable: what else the machine does decides nothing in a test that is not about that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measurement, "verdict", lambda self: Verdict(stable=True, reasons=()))
        yield


class Watched:
    """A backend that counts its loads, keeps what it was given, and may be made to fail or to err."""

    def __init__(
        self, inner: Backend, failure: BaseException | None = None, bias: float = 0.0, changes: dict[str, Any] | None = None
    ) -> None:
        self.name = inner.name
        self.loads: list[nn.Module] = []
        self._inner = inner
        self._failure = failure
        self._bias = bias
        self._changes = changes or {}

    def unavailable(self, device: str) -> str | None:
        return self._inner.unavailable(device)

    def versions(self) -> dict[str, str]:
        return self._inner.versions()

    @contextlib.contextmanager
    def load(self, module: nn.Module, conditions: Conditions) -> Iterator[Session]:
        self.loads.append(module)
        if self._failure is not None:
            raise self._failure
        with self._inner.load(module, conditions) as session:
            inner_infer: Callable[[np.ndarray], np.ndarray] = session.infer
            for name, value in self._changes.items():
                setattr(session, name, value)
            if self._bias:
                session.infer = lambda image: inner_infer(image) + self._bias  # type: ignore[method-assign]
            yield session


def normalised(network: LPSNet) -> LPSNet:
    """The network with normalisations that are no identity, so that leaving them out or folding them wrongly shows."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -0.5, 0.5), (layer.running_mean, -0.5, 0.5)):
                values.data.uniform_(low, high, generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
    return network
