"""The comparison networks of the papers, one read-only table.

A new network is a file beside this one and a row here, or in another package a row that an entry point names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from lpsnet.baselines.afformer import afformer
from lpsnet.baselines.attention_unet import attention_unet, attention_unet_resnet34
from lpsnet.baselines.bowlnet import bowlnet
from lpsnet.baselines.deeplab import deeplab
from lpsnet.baselines.light import light
from lpsnet.baselines.liteseg import liteseg
from lpsnet.baselines.rtseg import dilation, skipnet, unet
from lpsnet.baselines.seam import Baseline
from lpsnet.baselines.unet import study_unet
from lpsnet.errors import UserError
from lpsnet.tables import Table


class Make(Protocol):
    """How a comparison network is made: number of classes, and whether with the faults of the published code."""

    def __call__(self, num_classes: int, *, published: bool = False) -> Baseline: ...


@dataclass(frozen=True)
class Paper:
    """Where networks come from.

    Args:
        name: of the paper's network.
        arxiv: number of the paper.
        flops: what the paper counts as its FLOPs.
    """

    name: str
    arxiv: str
    flops: str


@dataclass(frozen=True)
class Row:
    """A row: a comparison network, called with a number of classes.

    Args:
        name: of the network.
        paper: it comes from.
        make: it.
        stride: of the score maps; 1 where the decoder ends at the image's own size.
        parameters: of the published network with 19 classes in training form, without layers that are never used.
        gmacs: multiply-adds of the published network with 19 classes for 1024x2048 pixels, in units of 1e9.
    """

    name: str
    paper: Paper
    make: Make
    stride: int
    parameters: int
    gmacs: float

    def __call__(self, num_classes: int, *, published: bool = False) -> Baseline:
        """The network with random weights; with `published` as its code has it, see its maker for the difference.

        Raises:
            ValueError: `num_classes` below 1.
        """
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        return self.make(num_classes, published=published)


RTSEG = Paper("RTSeg", "1803.02758", "2 a multiply-add, with 20 classes, layers that are never used included")
LITESEG = Paper(
    "LiteSeg", "1912.06683", "2k^2 - 1 a product of channels and position of a k x k convolution; normalisations and activations"
)
DEEPLAB = Paper("ShuffleNetV2 with atrous separable convolutions", "1902.07476", "2 a multiply-add, and normalisations")
STUDY = Paper("Segmentation can be light", "", "fvcore: multiply-adds, normalisations and resizes; each network at a size of its own")
AFFORMER = Paper("AFFormer", "2301.04648", "fvcore: multiply-adds, normalisations and resizes")

_ROWS = (
    Row("skipnet-vgg16", RTSEG, partial(skipnet, "vgg16"), 1, 134_457_042, 889.73),
    Row("skipnet-resnet18", RTSEG, partial(skipnet, "resnet18"), 1, 11_295_826, 79.03),
    Row("skipnet-mobilenet", RTSEG, partial(skipnet, "mobilenet"), 1, 3_356_202, 27.09),
    Row("skipnet-shufflenet", RTSEG, partial(skipnet, "shufflenet"), 1, 1_001_756, 8.619),
    Row("unet-vgg16", RTSEG, partial(unet, "vgg16"), 1, 28_071_955, 1047.70),
    Row("unet-resnet18", RTSEG, partial(unet, "resnet18"), 1, 11_534_899, 87.01),
    Row("unet-mobilenet", RTSEG, partial(unet, "mobilenet"), 1, 8_846_163, 108.74),
    Row("unet-shufflenet", RTSEG, partial(unet, "shufflenet"), 1, 6_380_845, 35.18),
    Row("dilation-vgg16", RTSEG, partial(dilation, "vgg16"), 1, 41_567_334, 1695.21),
    Row("dilation-resnet18", RTSEG, partial(dilation, "resnet18"), 1, 11_276_902, 388.38),
    Row("dilation-mobilenet", RTSEG, partial(dilation, "mobilenet"), 1, 8_563_532, 283.77),
    Row("dilation-shufflenet", RTSEG, partial(dilation, "shufflenet"), 1, 976_296, 31.27),
    Row("liteseg-darknet19", LITESEG, partial(liteseg, "darknet19"), 4, 20_545_459, 222.56),
    Row("liteseg-mobilenetv2", LITESEG, partial(liteseg, "mobilenetv2"), 4, 3_101_707, 17.221),
    Row("liteseg-shufflenet", LITESEG, partial(liteseg, "shufflenet"), 8, 1_971_451, 8.980),
    Row("shufflenetv2-basic", DEEPLAB, partial(deeplab, "shufflenetv2", "basic"), 16, 1_148_249, 9.656),
    Row("shufflenetv2-dpc", DEEPLAB, partial(deeplab, "shufflenetv2", "dpc"), 16, 1_506_121, 13.523),
    Row("mobilenetv2-basic", DEEPLAB, partial(deeplab, "mobilenetv2", "basic"), 16, 2_113_043, 20.827),
    Row("mobilenetv2-dpc", DEEPLAB, partial(deeplab, "mobilenetv2", "dpc"), 16, 2_506_195, 24.684),
    Row("unet", STUDY, study_unet, 1, 17_264_147, 1281.779),
    Row("attention-unet", STUDY, attention_unet, 1, 34_866_043, 2128.014),
    Row("attention-unet-resnet34", STUDY, attention_unet_resnet34, 2, 25_397_531, 307.316),
    Row("light", STUDY, light, 2, 2_980_607, 19.822),
    Row("bowlnet", STUDY, bowlnet, 1, 3_051_827, 136.231),
    Row("afformer-tiny", AFFORMER, partial(afformer, "tiny"), 8, 2_093_639, 23.537),
    Row("afformer-small", AFFORMER, partial(afformer, "small"), 8, 2_289_439, 25.571),
    Row("afformer-base", AFFORMER, partial(afformer, "base"), 8, 2_904_239, 33.656),
)

BASELINES: Table[Row] = Table("lps_search.networks", {row.name: row for row in _ROWS}, Row)
"""Comparison network by name."""

assert len({row.name for row in _ROWS}) == len(_ROWS)


def baseline(name: str, num_classes: int) -> Baseline:
    """The comparison network of a name, with random weights.

    Raises:
        UserError: no network of that name; the message lists the names.
        ValueError: as calling the row does.
    """
    if name not in BASELINES:
        raise UserError(f"unknown comparison network {name!r}; there are: {', '.join(BASELINES)}")
    return BASELINES[name](num_classes)
