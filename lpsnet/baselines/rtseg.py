"""RTSeg (arXiv 1803.02758): four encoders, each with three decoders.

Convolutions in front of a normalisation are biased as in its code, except those of the encoder ResNet18; deploying folds
the biases. Padding is that of torch, as many pixels at either side.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from torch import nn

from lpsnet.baselines.dilation import Frontend
from lpsnet.baselines.mobilenet import mobilenet, mobilenet_dilated, unit
from lpsnet.baselines.resnet import resnet18
from lpsnet.baselines.seam import Baseline, Chain
from lpsnet.baselines.shufflenet import STEM, shufflenet_rtseg
from lpsnet.baselines.skipnet import SkipNet
from lpsnet.baselines.unet_rtseg import LinearUNet, LinkNet, PlainUNet
from lpsnet.baselines.vgg import vgg16, vgg16_dilated, vgg16_fc

NORMED = ("mobilenet", "shufflenet")
"""Encoders whose SkipNet is normalised."""

SKIPNET_ENCODERS: MappingProxyType[str, Callable[[], Chain]] = MappingProxyType(
    {
        "vgg16": lambda: vgg16_fc(("pool3", "pool4", "fc7")),
        "resnet18": lambda: resnet18(("stage3", "stage4", "stage5")),
        "mobilenet": lambda: mobilenet(("conv3_2", "conv4_2", "conv6_1")),
        "shufflenet": lambda: shufflenet_rtseg(("stage2", "stage3", "stage4")),
    }
)
"""Features at 1/8, 1/16 and 1/32, by encoder."""


def skipnet(encoder: str, num_classes: int, *, published: bool = False) -> Baseline:
    """Score maps of three features, added. `published` changes nothing."""
    chain = SKIPNET_ENCODERS[encoder]()
    return Baseline(f"skipnet-{encoder}", chain, SkipNet(chain.channels, num_classes, norm=encoder in NORMED), num_classes)


def unet(encoder: str, num_classes: int, *, published: bool = False) -> Baseline:
    """Features of every size, added from the smallest to the largest.

    The published MobileNet ends in a unit that is never used; it is left out unless `published`.
    """
    decoder: nn.Module
    if encoder == "vgg16":
        chain = vgg16(("conv1_1", "pool1", "pool2", "pool3", "pool4", "pool5"))
        decoder = PlainUNet(chain.channels, num_classes)
    elif encoder == "resnet18":
        chain = resnet18(("stage2", "stage3", "stage4", "stage5"))
        decoder = LinkNet(chain.channels, num_classes)
    elif encoder == "mobilenet":
        unused = unit(1024, 1024) if published else None
        chain = mobilenet(("conv2_1", "conv3_1", "conv4_1", "conv5_5", "conv5_6"), unused=unused)
        decoder = LinearUNet(chain.channels, 32, num_classes)
    else:
        chain = shufflenet_rtseg(("conv1", "pool", "stage2", "stage3", "stage4"))
        decoder = LinearUNet(chain.channels, STEM, num_classes)
    return Baseline(f"unet-{encoder}", chain, decoder, num_classes)


def dilation(encoder: str, num_classes: int, *, published: bool = False) -> Baseline:
    """One feature at 1/8, with rates 2 and 4 where the encoder would go on to 1/16 and 1/32.

    The code of the published ResNet18 has these rates on 1x1 shortcuts only, where a rate does nothing: with `published`
    its 3x3 convolutions have rate 1, as there.
    """
    if encoder == "vgg16":
        chain = vgg16_dilated()
    elif encoder == "resnet18":
        chain = resnet18(("stage5",), strides=(1, 2, 1, 1), dilations=(1, 1, 1, 1) if published else (1, 1, 2, 4))
    elif encoder == "mobilenet":
        chain = mobilenet_dilated()
    else:
        chain = shufflenet_rtseg(("stage4",), strides=(2, 1, 1), dilations=(1, 2, 4))
    return Baseline(f"dilation-{encoder}", chain, Frontend(chain.channels[-1], num_classes, norm=encoder == "mobilenet"), num_classes)
