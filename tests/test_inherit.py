"""A child starts as its parent: for every operation of Table 1, in eval and in train mode, and every new weight learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lpsnet.architecture import BLOCK_NAMES, INTERACTION_NAMES, Architecture
from lpsnet.inherit import inherit, path_origins, training_form
from lpsnet.network import LPSNet
from search.space import OPERATIONS, Operation, expansion

ONE = Architecture.parse("B1-1-2-1-2_C4-8-8-16-16_R4")
TWO = Architecture.parse("B1-2-1-2-1_C4-8-8-16-16_R8-4")
PRESERVING = [
    (parent, operation, k)
    for parent in (ONE, TWO)
    for operation in OPERATIONS
    for k in (1, 3)
    # A scaled path sees other inputs, and a path larger than the largest changes the grid of the scores.
    if operation.dimension != "scale" or (parent.num_paths < 2 and operation.name == "scale-2") or operation.name == "scale-3"
]


def a_parent(architecture: Architecture, *, branches: bool = True, seed: int = 0) -> LPSNet:
    """A network whose normalisations are no longer as they began."""
    torch.manual_seed(seed)
    network = LPSNet(architecture, 5, branches=branches)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.5)
    network.train()
    for _ in range(60):
        network.scores(images())
    return network


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(seed))


def difference(one: LPSNet, other: LPSNet, batch: Tensor) -> float:
    with torch.no_grad():
        return float((one.scores(batch) - other.scores(batch)).abs().max())


class TestTheSameFunction:
    @pytest.mark.parametrize(("parent", "operation", "k"), PRESERVING, ids=lambda value: getattr(value, "name", str(value)))
    @pytest.mark.parametrize("branches", [True, False])
    def test_in_eval_and_in_train_mode(self, parent: Architecture, operation: Operation, k: int, branches: bool) -> None:
        network = a_parent(parent, branches=branches)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        child = inherit(network, expansion(parent, operation, k), images())
        assert child.architecture == expansion(parent, operation, k)
        assert child.training
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()), "the parent is left as it was"
        assert difference(network.eval(), child.eval(), images(seed=7)) < 1e-4
        assert difference(network.train(), child.train(), images()) < 1e-4

    def test_a_child_that_is_its_parent_is_a_copy(self) -> None:
        network = a_parent(TWO)
        child = inherit(network, TWO, images())
        assert all(
            torch.equal(value, child.state_dict()[name]) for name, value in network.state_dict().items() if "num_batches" not in name
        )

    def test_a_scaled_path_keeps_its_weights_and_changes_the_function(self) -> None:
        network = a_parent(ONE)
        child = inherit(network, expansion(ONE, OPERATIONS[7], 2), images())
        assert all(
            torch.equal(value, child.state_dict()[name]) for name, value in network.state_dict().items() if "num_batches" not in name
        )
        assert child.architecture.scales == (6,)
        with torch.no_grad():
            assert child.scores(images()).shape[-1] > network.scores(images()).shape[-1]

    def test_a_child_of_a_child(self) -> None:
        network = a_parent(ONE)
        deeper = inherit(network, expansion(ONE, OPERATIONS[1], 2), images())
        wider = inherit(deeper, expansion(deeper.architecture, OPERATIONS[4], 1), images())
        assert difference(network.eval(), wider.eval(), images(seed=3)) < 1e-4


class TestLearning:
    @pytest.mark.parametrize(
        ("parent", "operation", "k"), [row for row in PRESERVING if row[2] == 3], ids=lambda value: getattr(value, "name", str(value))
    )
    def test_every_new_weight_moves_within_ten_updates(self, parent: Architecture, operation: Operation, k: int) -> None:
        network = a_parent(parent)
        child = inherit(network, expansion(parent, operation, k), images())
        start = {name: value.detach().clone() for name, value in child.named_parameters()}
        optimizer = torch.optim.SGD(child.parameters(), lr=0.05, momentum=0.9)
        for number in range(10):
            scores = child.scores(images(seed=number))
            labels = torch.randint(0, 5, (2, *scores.shape[-2:]), generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            nn.functional.cross_entropy(scores, labels).backward()
            optimizer.step()
        still = {name: float((value.detach() == start[name]).float().mean()) for name, value in child.named_parameters()}
        # A channel that a ReLU never lets through stays where it is, in any network; whole tensors do not.
        assert max(still.values()) < 0.5, {name: share for name, share in still.items() if share >= 0.5}

    def test_new_channels_differ_from_each_other(self) -> None:
        child = inherit(a_parent(ONE), expansion(ONE, OPERATIONS[3], 1), images())
        rows = child.paths[0].stages[1][0].conv.weight[8:].flatten(1)  # type: ignore[index, union-attr]
        assert torch.pdist(rows).min() > 1e-3


class TestOrigins:
    def test_a_path_scaled_past_its_sibling_keeps_its_own_weights(self) -> None:
        assert path_origins((4, 2), (6, 4)) == (1, 0)
        assert path_origins((4, 2), (6, 2)) == (0, 1)

    def test_a_new_path_has_no_origin(self) -> None:
        assert path_origins((4,), (4, 2)) == (0, None)
        assert path_origins((4,), (6, 4)) == (None, 0)
        assert path_origins((4, 4), (4, 4, 4)) == (0, 1, None)

    @given(st.lists(st.integers(1, 16), min_size=1, max_size=3), st.sampled_from(OPERATIONS[7:]), st.integers(1, 12))
    @settings(max_examples=200)
    def test_every_path_of_the_parent_lives_on_once(self, scales: list[int], operation: Operation, k: int) -> None:
        parent = Architecture((1,) * 5, (4, 8, 8, 16, 16), tuple(scales))
        child = expansion(parent, operation, k)
        origins = path_origins(parent.scales, child.scales)
        assert sorted(source for source in origins if source is not None) == list(range(parent.num_paths))
        assert all(child.scales[i] >= parent.scales[source] for i, source in enumerate(origins) if source is not None)


class TestRefusals:
    @pytest.mark.parametrize("text", ["B1-1-1-1-2_C4-8-8-16-16_R4", "B1-1-2-1-2_C4-8-8-8-16_R4", "B1-1-2-1-2_C4-8-8-16-16_R2"])
    def test_a_smaller_network(self, text: str) -> None:
        with pytest.raises(ValueError, match="no expansion"):
            inherit(a_parent(ONE), Architecture.parse(text), images())

    def test_a_deployed_parent(self) -> None:
        with pytest.raises(ValueError, match="training form"):
            inherit(a_parent(ONE).eval().deploy(), ONE, images())

    @pytest.mark.parametrize("kind", [*BLOCK_NAMES, *INTERACTION_NAMES])
    def test_another_block_or_an_interaction_with_weights(self, kind: str) -> None:
        """Nothing is grown by rules that were made for other weights."""
        architecture = Architecture.parse(f"{ONE}_{kind}")
        if kind in ("conv3x3", "none", "bilateral-b"):
            assert inherit(LPSNet(architecture, 5), architecture, images()).architecture == architecture
            return
        with pytest.raises(
            ValueError, match=rf"inherited for conv3x3 blocks only, with the interaction none or bilateral-b; got .*_{kind}"
        ):
            inherit(LPSNet(architecture, 5), expansion(architecture, OPERATIONS[7], 1), images())


class TestTrainingForm:
    @pytest.mark.parametrize("branches", [True, False])
    @pytest.mark.parametrize("architecture", [ONE, TWO], ids=str)
    def test_starts_as_the_deployed_network(self, architecture: Architecture, branches: bool) -> None:
        deployed = a_parent(architecture).eval().deploy()
        trained = training_form(deployed, images(), branches=branches)
        assert not trained.deployed and trained.branches == branches and not trained.training
        assert difference(deployed, trained, images(seed=7)) < 1e-4
        assert difference(deployed, trained.deploy(), images(seed=7)) < 1e-4
        assert difference(deployed, trained.train(), images()) < 1e-4

    def test_every_weight_moves_within_ten_updates(self) -> None:
        trained = training_form(a_parent(TWO).eval().deploy(), images()).train()
        before = {name: value.clone() for name, value in trained.named_parameters()}
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
        for step in range(10):
            optimizer.zero_grad()
            trained.scores(images(seed=step)).square().mean().backward()
            optimizer.step()
        assert all(not torch.equal(value, before[name]) for name, value in trained.named_parameters())

    def test_refuses_what_it_cannot_bring_back(self) -> None:
        with pytest.raises(ValueError, match="training form already"):
            training_form(a_parent(ONE), images())
        separable = LPSNet(Architecture(ONE.depths, ONE.widths, ONE.scales, block="sepconv3x3"), 5, deployed=True)
        with pytest.raises(ValueError, match="trained on for conv3x3 blocks only"):
            training_form(separable, images())
