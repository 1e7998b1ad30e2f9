"""Pre-training of a path as an image classifier, and the loader of a folder of classes (ImageNet's layout, without torchvision).

    root/train/CLASS/*.JPEG   root/val/CLASS/*.JPEG

What comes out is a checkpoint of one path, which `transfer` puts into every path of a segmentation network. The paper's
stronger recipe (section 4.5) starts from such weights.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path as FilePath

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import Architecture
from lpsnet.checkpoint import CheckpointError, write_atomic
from lpsnet.data.augment import normalise
from lpsnet.data.files import IMAGE_SUFFIXES, read_image
from lpsnet.data.frames import DataError
from lpsnet.data.prefetch import ahead
from lpsnet.errors import TrainingFailed
from lpsnet.network import STRIDES, Path
from lpsnet.resume import Keeper

AREA = (0.08, 1.0)
"""Share of an image that a training crop covers (Inception's random resized crop)."""


class Classifier(nn.Module):
    """A path of an architecture, its features averaged over the image, and a linear layer."""

    def __init__(self, architecture: Architecture, num_classes: int, *, branches: bool = True) -> None:
        super().__init__()
        self.path = Path(architecture, branches=branches, deployed=False)
        self.head = nn.Linear(architecture.widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        features = images
        for stage in range(len(STRIDES)):
            features = self.path.stage(stage, features)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class ClassFolder:
    """One split of a folder of classes.

    Raises:
        DataError: no such folder, fewer than two classes, or a class without images.
    """

    def __init__(self, root: FilePath, split: str, class_names: tuple[str, ...] = ()) -> None:
        folder = root / split
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; looked for train/CLASS/ and val/CLASS/ below {root}")
        self.class_names = class_names or tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        if len(self.class_names) < 2:
            raise DataError(f"{folder} holds {len(self.class_names)} folders of classes, at least 2 are needed")
        self.images: list[tuple[FilePath, int]] = []
        for index, name in enumerate(self.class_names):
            found = sorted(path for path in (folder / name).glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise DataError(f"{folder / name} holds no image; looked for {', '.join(IMAGE_SUFFIXES)}")
            self.images += [(path, index) for path in found]

    def __len__(self) -> int:
        return len(self.images)


def crop_of(image: Image.Image, size: int, chance: random.Random | None) -> np.ndarray:
    """A square of an image, (size, size, 3), uint8: random in place, area, shape and side, or the middle without `chance`."""
    width, height = image.size
    if chance is None:
        side = round(min(width, height) * 0.875)
        left, top, box_width, box_height = (width - side) // 2, (height - side) // 2, side, side
    else:
        area, shape = width * height * chance.uniform(*AREA), math.exp(chance.uniform(math.log(3 / 4), math.log(4 / 3)))
        box_width, box_height = (
            max(1, min(limit, round(value))) for limit, value in ((width, (area * shape) ** 0.5), (height, (area / shape) ** 0.5))
        )
        left, top = chance.randint(0, width - box_width), chance.randint(0, height - box_height)
    found = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + box_width, top + box_height))
    if chance is not None and chance.random() < 0.5:
        found = found.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(found)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """How a path is pre-trained: SGD with momentum, a cosine after a linear warm-up, label smoothing."""

    epochs: int = 90
    batch_size: int = 256
    size: int = 224
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    warmup_epochs: float = 5.0

    def rate_at(self, epoch: float) -> float:
        """Learning rate at a fraction of epochs done."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * max(epoch, 0.01) / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(1e-9, self.epochs - self.warmup_epochs)
        return self.learning_rate * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def pretrain(
    architecture: Architecture,
    root: FilePath,
    recipe: PretrainRecipe,
    *,
    seed: int = 0,
    device: str = "cpu",
    keeper: Keeper | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[Classifier, float]:
    """Train a path to classify the images below `root`; returns it with its accuracy on the validation split, in percent.

    With a keeper its state is saved after each epoch, and a training that was stopped goes on after the last one.

    Raises:
        CheckpointError: a state that is damaged, of another training, or cannot be written.
        DataError: a folder that is not laid out so, or an image that cannot be read.
        TrainingFailed: the loss became NaN or infinite.
    """
    training = ClassFolder(root, "train")
    validation = ClassFolder(root, "val", training.class_names)
    torch.manual_seed(seed)
    network = Classifier(architecture, len(training.class_names)).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    steps = max(1, len(training) // recipe.batch_size)
    begun = 0
    if keeper is not None and (state := keeper.load()):
        begun = state["epoch"]
        if (found := state.get("classes")) != list(training.class_names):
            raise CheckpointError(f"{keeper.path} is of the classes {found}, {root} has {list(training.class_names)}; name another file")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(begun, recipe.epochs):
        for step, (images, labels) in enumerate(_batches(training, recipe, seed, epoch)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(epoch + step / steps)
            logits = network(normalise(images.to(device)))
            loss = F.cross_entropy(logits, labels.to(device), label_smoothing=recipe.label_smoothing)
            if not math.isfinite(float(loss.detach())):
                raise TrainingFailed(f"the loss is {float(loss.detach())} in epoch {epoch + 1}; a lower learning rate may help")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if keeper is not None:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "classes": list(training.class_names)}
            keeper.save({"epoch": epoch + 1, **state})
        on_progress("epochs", epoch + 1, recipe.epochs)
    return network, accuracy(network, validation, recipe, device)


def accuracy(network: Classifier, split: ClassFolder, recipe: PretrainRecipe, device: str) -> float:
    """Share of images classified right, in percent. The network is left in eval mode."""
    network.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in _batches(split, recipe, None, 0):
            right += int((network(normalise(images.to(device))).max(1).indices.cpu() == labels).sum())
    return 100 * right / len(split)


def save_path(file: FilePath, network: Classifier, told: dict[str, object]) -> None:
    """Write the path's weights for `transfer`, with a description. Raises `CheckpointError`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items() if name.startswith("path.")}
    write_atomic(file, safetensors_bytes(tensors, {"classifier": json.dumps(told)}))


def _batches(split: ClassFolder, recipe: PretrainRecipe, seed: int | None, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of an epoch, shuffled and augmented by a seed, or whole and in order without one; decoded ahead."""
    order = list(range(len(split)))
    if seed is not None:
        random.Random(f"{seed} {epoch}").shuffle(order)
        order = order[: max(recipe.batch_size, len(order) // recipe.batch_size * recipe.batch_size)]
    chunks = [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]

    def one(index: int) -> np.ndarray:
        chance = None if seed is None else random.Random(f"{seed} {epoch} {index}")
        return crop_of(Image.fromarray(read_image(split.images[index][0])), recipe.size, chance)

    with ThreadPoolExecutor(4) as pool:

        def batch(indices: list[int]) -> tuple[Tensor, Tensor]:
            images = torch.from_numpy(np.stack(list(pool.map(one, indices)))).permute(0, 3, 1, 2)
            return images, torch.tensor([split.images[index][1] for index in indices])

        yield from ahead(chunks, batch)
