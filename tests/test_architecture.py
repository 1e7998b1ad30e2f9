"""Architecture: one value a network, and its text."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpsnet.architecture import BLOCK_NAMES, INTERACTION_NAMES, NAMED, Architecture, ArchitectureError

DEPTHS = (1, 3, 3, 10, 10)
WIDTHS = (8, 24, 48, 96, 96)
S_TEXT = "B1-3-3-10-10_C8-24-48-96-96_R6-2"

stages = st.tuples(*[st.integers(1, 999)] * 5)
architectures = st.builds(
    Architecture,
    stages,
    stages,
    st.lists(st.integers(0, 99), min_size=1, max_size=6).filter(any).map(tuple),
    st.sampled_from(BLOCK_NAMES),
    st.sampled_from(INTERACTION_NAMES),
)


# One value a network


def test_zero_scales_are_dropped_and_the_rest_sorted_from_large_to_small() -> None:
    assert Architecture(DEPTHS, WIDTHS, (0, 2, 0, 6)).scales == (6, 2)
    assert Architecture(DEPTHS, WIDTHS, (2, 6, 0)).num_paths == 2


def test_equal_scales_of_two_paths_are_both_kept() -> None:
    assert Architecture(DEPTHS, WIDTHS, (4, 4)).scales == (4, 4)


def test_spellings_of_one_network_are_equal_hash_alike_and_print_alike() -> None:
    spellings = [Architecture(DEPTHS, WIDTHS, scales) for scales in ((6, 2), (2, 6), (0, 2, 6), (6, 0, 2, 0))]
    spellings.append(Architecture(list(DEPTHS), list(WIDTHS), [2, 6]))  # type: ignore[arg-type]
    assert len(set(spellings)) == 1
    assert {str(spelling) for spelling in spellings} == {S_TEXT}


@pytest.mark.parametrize(
    "change",
    [
        {"depths": (1, 3, 3, 10, 9)},
        {"widths": (8, 24, 48, 96, 95)},
        {"scales": (6, 3)},
        {"scales": (6,)},
        {"block": "sepconv3x3"},
        {"interaction": "none"},
    ],
)
def test_every_field_tells_networks_apart(change: dict[str, object]) -> None:
    other = dataclasses.replace(NAMED["LPS-Net-S"], **change)  # type: ignore[arg-type]
    assert other != NAMED["LPS-Net-S"]
    assert str(other) != S_TEXT


@pytest.mark.parametrize("name", ["depths", "widths", "scales", "block", "interaction"])
def test_an_architecture_cannot_be_changed(name: str) -> None:
    architecture = Architecture(DEPTHS, WIDTHS, (6, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(architecture, name, getattr(architecture, name))


def test_an_architecture_survives_pickling() -> None:
    architecture = Architecture(DEPTHS, WIDTHS, (2, 6), interaction="none")
    assert pickle.loads(pickle.dumps(architecture)) == architecture


# Text and back


@given(architectures)
def test_parse_is_the_inverse_of_str(architecture: Architecture) -> None:
    assert Architecture.parse(str(architecture)) == architecture


def test_every_architecture_that_can_be_made_can_be_read_back() -> None:
    for number in (999_999, 1_000_000, 10**12):
        try:
            architecture = Architecture((1, 1, 1, 1, 1), (1, 1, 1, 1, number), (4,))
        except ArchitectureError:
            continue  # refusing the number is as good
        assert Architecture.parse(str(architecture)) == architecture


def test_the_text_of_s_is_exact() -> None:
    assert str(NAMED["LPS-Net-S"]) == S_TEXT
    assert Architecture.parse(S_TEXT) == Architecture(DEPTHS, WIDTHS, (6, 2), "conv3x3", "bilateral-b")


def test_block_and_interaction_stand_in_the_text_only_where_not_the_default() -> None:
    texts = {(block, mix): str(Architecture(DEPTHS, WIDTHS, (6, 2), block, mix)) for block in BLOCK_NAMES for mix in INTERACTION_NAMES}
    assert len(set(texts.values())) == len(BLOCK_NAMES) * len(INTERACTION_NAMES)
    assert texts["conv3x3", "bilateral-b"] == S_TEXT
    assert texts["sepconv3x3", "bilateral-b"] == f"{S_TEXT}_sepconv3x3"
    assert texts["conv3x3", "none"] == f"{S_TEXT}_none"
    assert texts["inverted-residual", "attention-a"] == f"{S_TEXT}_inverted-residual_attention-a"
    assert texts["residual", "bilateral-a"] == f"{S_TEXT}_residual_bilateral-a"


def test_the_blocks_and_interactions_are_those_of_tables_2_and_3() -> None:
    assert BLOCK_NAMES == ("conv3x3", "sepconv3x3", "residual", "bottleneck", "inverted-residual", "ghost", "shufflenet")
    assert set(INTERACTION_NAMES) == {"none", *(f"{kind}-{letter}" for kind in ("direct", "attention", "bilateral") for letter in "ab")}


def test_a_default_written_out_is_read_and_not_printed() -> None:
    assert str(Architecture.parse(f"{S_TEXT}_conv3x3_bilateral-b")) == S_TEXT


def test_scales_in_any_order_leading_zeros_and_outer_space_are_read() -> None:
    assert str(Architecture.parse(" B01-3-3-10-10_C8-24-48-96-96_R0-2-06\n")) == S_TEXT


def test_the_named_networks_are_those_of_the_paper() -> None:
    assert {name: str(architecture) for name, architecture in NAMED.items()} == {
        "N0": "B1-1-1-1-1_C4-8-16-32-32_R4",
        "LPS-Net-S": S_TEXT,
        "LPS-Net-M": "B1-3-3-10-10_C8-24-48-96-96_R8-2",
        "LPS-Net-L": "B1-3-3-10-10_C8-24-64-160-160_R8-2",
    }


@pytest.mark.parametrize("name", NAMED)
def test_names_resolve_whatever_their_case(name: str) -> None:
    for spelling in (name, name.lower(), name.upper(), f" {name} "):
        assert Architecture.parse(spelling) == NAMED[name]


# What is refused


@pytest.mark.parametrize(
    ("text", "position", "expected", "found"),
    [
        ("", 1, "'B'", "the end"),
        ("X1-3", 1, "'B'", "'X'"),
        ("b1-3-3-10-10_C8-24-48-96-96_R6-2", 1, "'B'", "'b'"),
        ("LPS-Net-XL", 1, "'B'", "'L'"),
        ("B", 2, "a whole number", "the end"),
        ("B-1-3-3-10-10_C8-24-48-96-96_R6-2", 2, "a whole number", "'-'"),
        ("B1--3-3-10-10_C8-24-48-96-96_R6-2", 4, "a whole number", "'-'"),
        ("B1.5-3-3-10-10_C8-24-48-96-96_R6-2", 3, "'-' and a number for each of the 5 stages of B", "'.'"),
        ("B1-3-3-10_C8-24-48-96-96_R6-2", 10, "'-' and a number for each of the 5 stages of B", "'_'"),
        ("B1-3-3-10-10-10_C8-24-48-96-96_R6-2", 13, "'_'", "'-'"),
        ("B1-3-3-10-10", 13, "'_'", "the end"),
        ("B1-3-3-10-10_R6-2", 14, "'C'", "'R'"),
        ("B1-3-3-10-10_C8-24-48-96_R6-2", 25, "'-' and a number for each of the 5 stages of C", "'_'"),
        ("B1-3-3-10-10_C8-24-48-96-x_R6-2", 26, "a whole number", "'x'"),
        ("B1-3-3-10-10_C8-24-48-96-96", 28, "'_'", "the end"),
        ("B1-3-3-10-10_C8-24-48-96-96_6-2", 29, "'R'", "'6'"),
        ("B1-3-3-10-10_C8-24-48-96-96_R", 30, "a whole number", "the end"),
        ("B1-3-3-10-10_C8-24-48-96-96_R6-", 32, "a whole number", "the end"),
        ("B1-3-3-10-10_C8-24-48-96-96_R6-2 ,", 33, "the end", "' '"),
        ("B1-3-3-10-10_C8-24-48-96-96_R\u0666", 30, "a whole number", "'\u0666'"),
        (f"{S_TEXT}_dense", 33, f"a block ({', '.join(BLOCK_NAMES)}) or interaction ({', '.join(INTERACTION_NAMES)})", "'_'"),
        (f"{S_TEXT}_inverted", 33, "a block", "'_'"),
        (f"{S_TEXT}_residual-attention-a", 33, "a block", "'_'"),
        (f"{S_TEXT}_none_sepconv3x3", 38, "a block", "'_'"),
        (f"{S_TEXT}_none_none", 38, "the end", "'_'"),
        (f"{S_TEXT}_sepconv3x3x", 33, "a block", "'_'"),
    ],
)
def test_bad_text_is_refused_at_the_position_of_its_first_wrong_character(text: str, position: int, expected: str, found: str) -> None:
    with pytest.raises(ArchitectureError) as refusal:
        Architecture.parse(text)
    message = str(refusal.value)
    assert repr(text) in message
    assert f"at position {position} expected " in message
    assert expected in message
    assert f"found {found};" in message
    assert S_TEXT in message and "LPS-Net-M" in message  # both ways to write one


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("B0-3-3-10-10_C8-24-48-96-96_R6-2", "B must be at least 1 everywhere, got [0, 3, 3, 10, 10]"),
        ("B1-3-3-10-10_C8-24-0-96-96_R6-2", "C must be at least 1 everywhere, got [8, 24, 0, 96, 96]"),
        ("B1-3-3-10-10_C8-24-48-96-96_R0-0", "R needs at least one scale above 0 (in eighths), got [0, 0]"),
    ],
)
def test_well_formed_text_of_no_network_is_refused_with_the_text_and_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ArchitectureError) as refusal:
        Architecture.parse(text)
    assert repr(text) in str(refusal.value)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1, 3, 3, 10)}, "B needs 5 numbers (blocks of each stage), got 4: [1, 3, 3, 10]"),
        ({"widths": (8,) * 6}, "C needs 5 numbers (channels of each stage), got 6: [8, 8, 8, 8, 8, 8]"),
        ({"depths": ()}, "B needs 5 numbers"),
        ({"depths": (1, 3, 0, 10, 10)}, "B must be at least 1 everywhere, got [1, 3, 0, 10, 10]"),
        ({"widths": (8, 24, 48, 96, -1)}, "C must be at least 1 everywhere, got [8, 24, 48, 96, -1]"),
        ({"scales": (6, -2)}, "R must not be negative, got [6, -2]"),
        ({"scales": (0, 0)}, "R needs at least one scale above 0"),
        ({"scales": ()}, "R needs at least one scale above 0"),
        ({"scales": (0.75, 0.25)}, "R needs whole numbers, got 0.75"),
        ({"widths": (8, 24, 48.0, 96, 96)}, "C needs whole numbers, got 48.0"),
        ({"depths": (True, 3, 3, 10, 10)}, "B needs whole numbers, got True"),
        ({"depths": "13345"}, "B needs whole numbers, got '1'"),
        ({"block": "dense"}, f"unknown block 'dense'; there are: {', '.join(BLOCK_NAMES)}"),
        ({"interaction": "bilateral"}, f"unknown interaction 'bilateral'; there are: {', '.join(INTERACTION_NAMES)}"),
    ],
)
def test_numbers_and_names_of_no_network_are_refused(change: dict[str, object], message: str) -> None:
    values = {"depths": DEPTHS, "widths": WIDTHS, "scales": (6, 2), **change}
    with pytest.raises(ArchitectureError) as refusal:
        Architecture(**values)  # type: ignore[arg-type]
    assert message in str(refusal.value)
