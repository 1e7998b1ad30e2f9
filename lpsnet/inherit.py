"""A network that starts where another stands: weights of a parent in its expansion, so that both compute the same function.

Net2Net (arXiv 1511.05641) for the operations of the paper's Table 1, exact with batch normalisation in eval and in train
mode: new blocks begin as the identity, new channels reach nothing that was there, a new path is silent. Only a path whose
scale changes sees other inputs, and its network another function. Also a training form that starts as a deployed network.
Does not cover other blocks than conv3x3, interactions with weights, training (`training.py`) or weights of files (`transfer.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from lpsnet.architecture import Architecture
from lpsnet.network import INTERACT_AFTER, LPSNet, Path
from lpsnet.reparam import RepConv

SILENT_BIAS = 1e-6
"""What a silent path gives instead of 0, which a ReLU would not let a gradient through."""

Statistics = list[list[tuple[Tensor, Tensor]]]
"""Mean and variance a channel of what each watched module of each path gives."""


def inherit(parent: LPSNet, architecture: Architecture, images: Tensor) -> LPSNet:
    """A network of `architecture` that starts as `parent`.

    Where depth or width grow, or a path is added that is no larger than the largest, it computes what the parent computes:
    in eval mode on any input, in train mode on `images`, from which the identity blocks take their statistics. Every new
    weight has a gradient within a few updates. Draws from torch's global generator.

    Args:
        parent: in training form; stays as it is.
        architecture: of the child: no dimension smaller than the parent's, the same block and interaction.
        images: a batch (N, 3, H, W), normalised, as the child will be trained on.

    Raises:
        ValueError: the child is not an expansion of the parent, or of a block or interaction that cannot begin as the identity.
    """
    _check(parent, architecture)
    child = LPSNet(architecture, parent.num_classes, branches=parent.branches).to(images.device)
    origin = path_origins(parent.architecture.scales, architecture.scales)
    statistics = _statistics(parent, images, [list(_path(parent, number).stages) for number in range(len(parent.paths))])
    with torch.no_grad():
        for number, source in enumerate(origin):
            sibling = min(number, parent.architecture.num_paths - 1) if source is None else source
            _grow_path(_path(parent, sibling), _path(child, number), statistics[sibling])
            if source is None:
                _silence(_path(child, number))
        _grow_head(parent, child, origin)
    return child.train(parent.training)


def training_form(network: LPSNet, images: Tensor, *, branches: bool = True) -> LPSNet:
    """A network in training form that starts as one in deployed form: fine-tuning from a deployed checkpoint.

    Its 3x3 convolutions hold the folded kernels, normalised by what they give for `images` and scaled back; the other branches
    begin at 0 and learn. It computes the same in eval mode on any input, in train mode on `images`.

    Args:
        network: in deployed form; stays as it is.
        images: a batch (N, 3, H, W), normalised, as the network will be trained on.
        branches: whether the training form has the branches of re-parameterisation.

    Raises:
        ValueError: a network in training form, or of another block than conv3x3.
    """
    if not network.deployed:
        raise ValueError(f"{network.architecture} is in training form already")
    network.architecture.require_plain("a deployed network is trained on")
    trained = LPSNet(network.architecture, network.num_classes, branches=branches).to(images.device)
    statistics = _statistics(network, images, [_convolutions(_path(network, number)) for number in range(len(network.paths))])
    with torch.no_grad():
        for number in range(len(network.paths)):
            blocks = [module for module in _path(trained, number).modules() if isinstance(module, RepConv)]
            for conv, block, (mean, variance) in zip(_convolutions(_path(network, number)), blocks, statistics[number], strict=True):
                _take_folded(block, conv, mean, variance)
        trained.head.load_state_dict(network.head.state_dict())
    return trained.train(network.training)


def _convolutions(path: Path) -> list[nn.Module]:
    return [module for module in path.modules() if isinstance(module, nn.Conv2d)]


def _take_folded(block: RepConv, conv: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Compute what a biased convolution does, whose output has this mean and variance a channel."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)
    block.conv.weight.copy_(weight)
    _normalise_to_itself(block.norm, mean, variance)
    assert block.norm.running_mean is not None
    block.norm.running_mean.sub_(bias)
    for norm in (block.point_norm, block.identity_norm):
        if norm is not None:
            norm.weight.zero_()


def path_origins(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int | None, ...]:
    """For each path of the child, the parent's path whose weights it has; None for a new one.

    Equal scales belong together; the others pair in order, so that what was scaled past a sibling keeps its own weights.
    """
    left = list(range(len(before)))
    origin: list[int | None] = [None] * len(after)
    for number, scale in enumerate(after):
        same = next((source for source in left if before[source] == scale), None)
        if same is not None:
            origin[number] = same
            left.remove(same)
    for number, scale in enumerate(after):
        if origin[number] is None and left and scale > before[left[0]]:
            origin[number] = left.pop(0)
    assert not left
    return tuple(origin)


def _check(parent: LPSNet, architecture: Architecture) -> None:
    before = parent.architecture
    same = (before.block, before.interaction) == (architecture.block, architecture.interaction)
    grown = all(
        old <= new
        for olds, news in ((before.depths, architecture.depths), (before.widths, architecture.widths), (before.scales, architecture.scales))
        for old, new in zip(olds, news, strict=False)
    )
    if not (same and grown and before.num_paths <= architecture.num_paths) or parent.deployed:
        raise ValueError(f"{architecture} is no expansion of {before} in training form: its weights cannot be inherited")
    architecture.require_plain("weights are inherited")


def _path(network: LPSNet, number: int) -> Path:
    return cast(Path, network.paths[number])


def _statistics(network: LPSNet, images: Tensor, modules: list[list[nn.Module]]) -> Statistics:
    """Of what some modules of each path give, as a batch normalisation in train mode would take them."""
    found: Statistics = [[] for _ in network.paths]

    def keep(path: int) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            variance, mean = torch.var_mean(output.float(), (0, 2, 3), correction=0)
            found[path].append((mean, variance))

        return hook

    hooks = [
        module.register_forward_hook(keep(number))  # type: ignore[arg-type]
        for number, watched in enumerate(modules)
        for module in watched
    ]
    try:
        with torch.no_grad(), _without_learning(network):
            network.scores(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def _without_learning(network: LPSNet) -> Iterator[None]:
    """Train mode, with running statistics that do not move."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    was, momenta = network.training, [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked.clone() for norm in norms if norm.num_batches_tracked is not None]
    try:
        for norm in norms:
            norm.momentum = 0.0
        network.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for norm, count in zip(norms, counts, strict=True):
            cast(Tensor, norm.num_batches_tracked).copy_(count)
        network.train(was)


def _grow_path(source: Path, target: Path, statistics: list[tuple[Tensor, Tensor]]) -> None:
    for stage, (old, new) in enumerate(zip(source.stages, target.stages, strict=True)):
        blocks = [cast(RepConv, block) for block in cast(nn.Sequential, new)]
        for block, grown in zip(cast(nn.Sequential, old), blocks, strict=False):
            _grow_block(cast(RepConv, block), grown)
        for block in blocks[len(cast(nn.Sequential, old)) :]:
            _begin_as_identity(block, *statistics[stage])


def _grow_block(old: RepConv, new: RepConv) -> None:
    """Old channels as they were; the new ones keep their random weights, and reach no old one."""
    for kind in ("conv", "point_conv"):
        before, after = getattr(old, kind), getattr(new, kind)
        if before is not None:
            outputs, inputs = before.weight.shape[:2]
            after.weight[:outputs, inputs:] = 0
            after.weight[:outputs, :inputs] = before.weight
    for kind in ("norm", "point_norm", "identity_norm"):
        before, after = getattr(old, kind), getattr(new, kind)
        if before is not None:
            for name in ("weight", "bias", "running_mean", "running_var"):
                values = getattr(before, name)
                getattr(after, name)[: len(values)] = values


def _begin_as_identity(block: RepConv, mean: Tensor, variance: Tensor) -> None:
    """The input is not negative, so that the ReLU behind the identity changes nothing.

    With branches the identity branch carries it and the others give 0; without, the convolution is the identity.
    """
    old = len(mean)
    if block.identity_norm is None:
        nn.init.dirac_(block.conv.weight)
        _normalise_to_itself(block.norm, mean, variance)
        return
    _normalise_to_itself(block.identity_norm, mean, variance)
    for norm in (block.norm, block.point_norm):
        assert norm is not None
        norm.weight[:old] = 0


def _normalise_to_itself(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Give back the first channels as they come, as long as their statistics are these."""
    old = len(mean)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean[:old], norm.running_var[:old] = mean, variance
    norm.weight[:old], norm.bias[:old] = (variance + norm.eps).sqrt(), mean


def _silence(path: Path) -> None:
    """Let the stages that interact give nearly nothing, yet pass gradients on."""
    for stage in INTERACT_AFTER:
        block = cast(RepConv, cast(nn.Sequential, path.stages[stage])[-1])
        norms = [norm for norm in (block.norm, block.point_norm, block.identity_norm) if norm is not None]
        for norm in norms:
            norm.weight.zero_()
            norm.bias.zero_()
        norms[0].bias.fill_(SILENT_BIAS)


def _grow_head(parent: LPSNet, child: LPSNet, origin: tuple[int | None, ...]) -> None:
    """Old channels count as they did, new ones not at all."""
    old, new = parent.architecture.widths[-1], child.architecture.widths[-1]
    child.head.weight.zero_()
    for number, source in enumerate(origin):
        if source is not None:
            child.head.weight[:, number * new : number * new + old] = parent.head.weight[:, source * old : (source + 1) * old]
    assert child.head.bias is not None and parent.head.bias is not None
    child.head.bias.copy_(parent.head.bias)
