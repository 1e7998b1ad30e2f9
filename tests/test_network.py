"""LPSNet: published parameter and MAC counts, shapes, and agreement with a second statement of the network."""

from __future__ import annotations

import pytest
import torch

from lpsnet.architecture import NAMED, Architecture, ArchitectureError
from lpsnet.complexity import complexity, count_macs, count_parameters
from lpsnet.network import LPSNet
from tests import restatement

SHALLOW, DEEP_5, DEEP = "B1-1-1-1-1", "B1-1-1-8-8", "B1-3-3-10-10"

# Fact sheet 1.3: step, architecture, parameters in training form and deployed, MACs in G at 1024x2048 with 19 classes.
TABLE_4 = [
    (0, f"{SHALLOW}_C4-8-16-32-32_R4", 16_183, 16_091, 0.063),
    (1, f"{DEEP_5}_C4-8-16-32-32_R4", 146_103, 145_563, 0.327),
    (2, f"{DEEP_5}_C4-16-32-64-64_R4", 580_071, 578_995, 1.243),
    (3, f"{DEEP_5}_C8-24-48-96-96_R4", 1_303_019, 1_301_403, 2.807),
    (4, f"{DEEP_5}_C8-24-48-96-96_R5", 1_303_019, 1_301_403, 4.385),
    (5, f"{DEEP}_C8-24-48-96-96_R5", 1_687_691, 1_685_547, 6.509),
    (6, f"{DEEP}_C8-24-48-96-96_R5-2", 3_375_363, 3_371_075, 7.555),
    (7, f"{DEEP}_C8-24-48-96-96_R6-2", 3_375_363, 3_371_075, 10.421),
    (8, f"{DEEP}_C8-24-48-96-96_R8-2", 3_375_363, 3_371_075, 17.718),
    (9, f"{DEEP}_C8-24-64-128-128_R8-2", 5_966_723, 5_961_059, 29.920),
    (10, f"{DEEP}_C8-24-64-160-160_R8-2", 9_159_235, 9_152_291, 43.808),
    (11, f"{DEEP}_C8-24-64-160-160_R9-2", 9_159_235, 9_152_291, 54.760),
    (12, f"{DEEP}_C8-24-64-160-160_R11-2", 9_159_235, 9_152_291, 80.531),
    (13, f"{DEEP}_C8-32-80-192-192_R11-2", 13_226_403, 13_218_035, 117.562),
    (14, f"{DEEP}_C8-32-96-224-224_R11-2", 18_004_259, 17_994_515, 158.426),
]

# Fact sheet 1.2: name, buffers of batch normalisation, exact MACs, score map at 1024x2048.
EXACT = [
    ("LPS-Net-S", 8_630, 10_421_305_344, (48, 96)),
    ("LPS-Net-M", 8_630, 17_717_526_528, (64, 128)),
    ("LPS-Net-L", 13_942, 43_807_670_272, (64, 128)),
]

# Fact sheet 1.2, "other sizes": name, size, MACs in G, score map where it is given.
OTHER_SIZES = [
    ("LPS-Net-S", (512, 1024), 2.605, (24, 48)),
    ("LPS-Net-M", (512, 1024), 4.429, (32, 64)),
    ("LPS-Net-L", (512, 1024), 10.952, None),
    ("LPS-Net-S", (720, 960), 3.474, (34, 45)),
    ("LPS-Net-M", (720, 960), 5.858, (45, 60)),  # 5,858,490,240; the sheet's 5.859 is rounded twice
    ("LPS-Net-L", (720, 960), 14.490, None),
    ("LPS-Net-S", (720, 1280), 4.632, (34, 60)),
    ("LPS-Net-M", (720, 1280), 7.811, (45, 80)),
    ("LPS-Net-L", (720, 1280), 19.320, None),
    ("LPS-Net-S", (768, 768), 2.931, None),
    ("LPS-Net-M", (768, 768), 4.983, None),
    ("LPS-Net-L", (768, 768), 12.321, None),
    ("LPS-Net-S", (768, 1536), 5.862, None),
    ("LPS-Net-M", (768, 1536), 9.966, None),
    ("LPS-Net-L", (768, 1536), 24.642, None),
]


def on_paper(architecture: str, **form: bool) -> LPSNet:
    """A network with shapes and no numbers."""
    with torch.device("meta"):
        return LPSNet(architecture, 19, **form).eval()


# Published counts


@pytest.mark.parametrize(("step", "text", "trained", "deployed", "giga_macs"), TABLE_4)
def test_a_step_of_table_4_has_the_counts_of_the_fact_sheet(step: int, text: str, trained: int, deployed: int, giga_macs: float) -> None:
    assert count_parameters(on_paper(text, branches=False)) == trained
    cost = complexity(text, 19, (1024, 2048))
    assert cost.parameters == deployed
    assert round(cost.macs / 1e9, 3) == giga_macs


def test_s_m_and_l_are_steps_7_8_and_10_of_table_4() -> None:
    texts = {step: text for step, text, *_ in TABLE_4}
    assert [str(NAMED[name]) for name in ("N0", "LPS-Net-S", "LPS-Net-M", "LPS-Net-L")] == [texts[0], texts[7], texts[8], texts[10]]


@pytest.mark.parametrize(("name", "buffers", "macs", "shape"), EXACT)
def test_macs_buffers_and_score_maps_of_s_m_and_l_are_exact(name: str, buffers: int, macs: int, shape: tuple[int, int]) -> None:
    trained = on_paper(name, branches=False)
    assert complexity(name, 19, (1024, 2048)).macs == macs
    assert count_macs(trained, (1024, 2048)) == macs  # batch normalisation is no multiply-add
    assert sum(buffer.numel() for buffer in trained.buffers()) == buffers
    images = torch.empty(1, 3, 1024, 2048, device="meta")
    assert trained.scores(images).shape == (1, 19, *shape)
    assert trained(images).shape == (1, 19, 1024, 2048)


@pytest.mark.parametrize(("name", "size", "giga_macs", "shape"), OTHER_SIZES)
def test_macs_and_score_maps_at_other_sizes(name: str, size: tuple[int, int], giga_macs: float, shape: tuple[int, int] | None) -> None:
    assert round(complexity(name, 19, size).macs / 1e9, 3) == giga_macs
    if shape is not None:
        assert on_paper(name).scores(torch.empty(2, 3, *size, device="meta")).shape == (2, 19, *shape)


def test_branches_add_a_pointwise_kernel_and_an_identity_where_shapes_allow() -> None:
    widths = (4, 8, 16, 32, 32)
    before = (3, *widths[:-1])
    pointwise = sum(i * o + 2 * o for i, o in zip(before, widths, strict=True))
    identity = 2 * widths[4]  # only the last stage of N0 keeps both channels and size
    plain, branched = (count_parameters(on_paper("N0", branches=branches)) for branches in (False, True))
    assert branched - plain == pointwise + identity


def test_counting_macs_leaves_the_network_as_it_was() -> None:
    network = LPSNet("N0", 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert count_macs(network.eval(), (32, 64)) == count_macs(on_paper("N0"), (32, 64)) - 1 * 2 * (19 - 3) * 32  # head of a 1x2 map
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# The network itself

SIZES = (67, 101)
DEPTHS = (1, 2, 1, 2, 2)
WIDTHS = (4, 8, 8, 16, 16)


def filled(scales: tuple[int, ...], interaction: str = "bilateral-b", classes: int = 5) -> tuple[LPSNet, restatement.Weights]:
    """A deployed network with given weights, and the weights."""
    weights = restatement.random_weights(DEPTHS, WIDTHS, len(scales), classes, seed=len(scales))
    network = LPSNet(Architecture(DEPTHS, WIDTHS, scales, interaction=interaction), classes, deployed=True).eval()
    network.load_state_dict(restatement.as_network_state(weights, len(scales)))
    return network, weights


def some_images(height: int, width: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scales", [(8,), (5,), (8, 2), (6, 2), (9, 3), (8, 5, 2), (8, 4, 3, 1), (4, 4)])
@pytest.mark.parametrize("size", [(64, 96), SIZES])
def test_the_network_agrees_with_its_restatement(scales: tuple[int, ...], size: tuple[int, int]) -> None:
    network, weights = filled(scales)
    images = some_images(*size)
    ratios = tuple(scale / 8 for scale in scales)
    with torch.inference_mode():
        found = network.scores(images)
        expected = restatement.scores(weights, DEPTHS, ratios, images)
    assert expected.std(dim=(-2, -1)).min() > 0.01  # the comparison is of maps, not of biases
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_none_agrees_with_the_restatement_without_interaction_and_differs_from_bilateral_b() -> None:
    images = some_images(*SIZES)
    network, weights = filled((8, 4, 2), "none")
    with torch.inference_mode():
        found = network.scores(images)
        torch.testing.assert_close(found, restatement.scores(weights, DEPTHS, (1, 1 / 2, 1 / 4), images, interact=False), rtol=0, atol=1e-4)
        assert (found - filled((8, 4, 2))[0].scores(images)).abs().max() > 0.1


def test_one_path_has_nothing_to_interact_with() -> None:
    images = some_images(*SIZES)
    with torch.inference_mode():
        assert torch.equal(filled((6,))[0].scores(images), filled((6,), "none")[0].scores(images))


def test_sepconv_is_depthwise_then_pointwise_each_with_relu() -> None:
    architecture = Architecture((1,) * 5, (4, 6, 8, 10, 12), (8,), "sepconv3x3")
    torch.manual_seed(0)
    network = LPSNet(architecture, 3, deployed=True).eval()
    state = network.state_dict()
    x = images = 4 * some_images(48, 80)
    for stage, stride in enumerate(restatement.STAGE_STRIDES):
        depthwise, pointwise = (
            (state[f"paths.0.stages.{stage}.0.{n}.weight"], state[f"paths.0.stages.{stage}.0.{n}.bias"]) for n in (0, 2)
        )
        x = torch.conv2d(x, *depthwise, stride=stride, padding=1, groups=x.shape[1]).clamp(min=0)
        x = torch.conv2d(x, *pointwise).clamp(min=0)
    expected = torch.conv2d(x, state["head.weight"], state["head.bias"])
    assert expected.std(dim=(-2, -1)).max() > 1e-4
    with torch.inference_mode():
        torch.testing.assert_close(network.scores(images), expected, rtol=0, atol=1e-6)


# Sizes


@pytest.mark.parametrize("text", ["N0", "B1-1-1-1-1_C4-8-8-8-8_R6-2", "B1-1-1-1-1_C4-8-8-8-8_R11-7-3-1", f"{NAMED['N0']}_sepconv3x3"])
@pytest.mark.parametrize("branches", [False, True])
def test_logits_come_at_the_odd_size_of_the_input(text: str, branches: bool) -> None:
    network = LPSNet(text, 7, branches=branches).eval()
    with torch.inference_mode():
        logits = network(some_images(97, 131))
    assert logits.shape == (2, 7, 97, 131)
    assert logits.isfinite().all()


def test_logits_are_the_resized_scores() -> None:
    network, _ = filled((6, 2))
    images = some_images(*SIZES)
    with torch.inference_mode():
        scores = network.scores(images)
        torch.testing.assert_close(network(images), restatement.bilinear(scores, *SIZES), rtol=0, atol=1e-4)
    assert scores.shape == (2, 5, 4, 5)  # ceil(50 / 16) and ceil(75 / 16)


@pytest.mark.parametrize(("scales", "least"), [((8,), 1), ((4,), 2), ((6, 2), 4), ((8, 3), 3), ((5, 1), 8), ((11, 2), 4), ((7,), 2)])
def test_the_least_size_works_and_one_pixel_less_is_refused_with_the_least_size(scales: tuple[int, ...], least: int) -> None:
    network = LPSNet(Architecture((1,) * 5, (2,) * 5, scales), 3).eval()
    with torch.inference_mode():
        assert network(some_images(least, least)).shape == (2, 3, least, least)
        assert network(some_images(least, 64)).shape == (2, 3, least, 64)
        for small in ((least - 1, 64), (64, least - 1)) if least > 1 else ():
            for run in (network, network.scores):
                with pytest.raises(
                    ValueError, match=rf"input {small[0]}x{small[1]} is too small .*the least size that works is {least}x{least}"
                ):
                    run(some_images(*small))


def test_unequal_path_sizes_round_down() -> None:
    assert LPSNet("LPS-Net-S").path_sizes(97, 131) == [(72, 98), (24, 32)]


@pytest.mark.parametrize("count", [0, -1])
def test_a_network_without_classes_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes must be at least 1, got {count}"):
        LPSNet("N0", count)


def test_a_network_is_made_from_a_name_a_text_or_an_architecture() -> None:
    for given in ("lps-net-s", str(NAMED["LPS-Net-S"]), NAMED["LPS-Net-S"]):
        with torch.device("meta"):
            assert LPSNet(given).architecture == NAMED["LPS-Net-S"]
    with pytest.raises(ArchitectureError, match="at position 1"):
        LPSNet("LPS-Net-XS")


def test_paths_share_no_weights() -> None:
    network = LPSNet("LPS-Net-S")
    first, second = (list(path.parameters()) for path in network.paths)
    assert not {parameter.data_ptr() for parameter in first} & {parameter.data_ptr() for parameter in second}
