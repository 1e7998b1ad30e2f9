"""Networks on the Hugging Face Hub or in a folder laid out like a repository there.

    HubNetwork.from_pretrained("some/repository")        # or a local folder
    HubNetwork.of("checkpoint.safetensors").save_pretrained("folder")
    HubNetwork.of("checkpoint.safetensors").push_to_hub("some/repository")

The folder holds the checkpoint as this project writes it, under the name the Hub expects, and its model card.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor, nn

from lpsnet.checkpoint import CheckpointError, load, read_metadata
from lpsnet.zoo import Network, build

FILE = "model.safetensors"


class HubNetwork(nn.Module, PyTorchModelHubMixin, library_name="lps-search", tags=["semantic-segmentation"]):
    """A network that can be had from the Hub and given to it. Remembers the checkpoint it came from, which is what is passed on.

    Args:
        architecture: a text that `lpsnet.zoo.canonical` knows.
        num_classes: channels of the output.
        branches: as of `lpsnet.zoo.build`.
        deployed: likewise.
    """

    network: Network
    """The network itself."""

    source: Path

    def __init__(self, architecture: str, num_classes: int = 19, *, branches: bool = True, deployed: bool = False) -> None:
        super().__init__()
        self.network = build(architecture, num_classes, branches=branches, deployed=deployed)
        self.num_classes, self.branches, self.deployed = num_classes, self.network.branches, deployed

    @property
    def name(self) -> str:
        """Of the network."""
        return self.network.name

    def scores(self, images: Tensor) -> Tensor:
        """Score maps at the network's own scale."""
        return self.network.scores(images)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at full resolution, (N, num_classes, H, W), for images (N, 3, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def deploy(self) -> Network:
        """The network in deployed form."""
        return self.network.deploy()

    @classmethod
    def of(cls, checkpoint: str | Path) -> HubNetwork:
        """The network of a checkpoint. Raises `CheckpointError` as `load` does."""
        told = read_metadata(checkpoint)
        found = cls(told.architecture, len(told.class_names), branches=told.branches, deployed=told.deployed)
        found.network = load(checkpoint)
        found.source = Path(checkpoint)
        return found.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Copy the checkpoint it came from; called by `save_pretrained` and `push_to_hub`."""
        told = read_metadata(self.source)
        if any(self.source.parent.glob(f"{self.source.stem}-2-of-*")):
            raise CheckpointError(f"{self.source} is in several files; save it as one for the Hub")
        save_directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.source, save_directory / FILE)
        card = self.source.parent / "README.md"
        if card.is_file() and told.architecture in card.read_text():
            shutil.copy(card, save_directory / "README.md")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubNetwork:
        """The network of a folder or of a repository on the Hub. Raises `CheckpointError`."""
        folder = Path(model_id)
        if folder.is_dir():
            return cls.of(folder / FILE)
        named = ("revision", "cache_dir", "force_download", "token", "local_files_only")
        try:
            return cls.of(hf_hub_download(model_id, FILE, **{name: options[name] for name in named if name in options}))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{model_id} is no folder here and cannot be had from the Hub: {reason}") from error
