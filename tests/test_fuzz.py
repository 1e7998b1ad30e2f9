"""A few thousand hostile inputs (`make fuzz` has a million), values that hypothesis draws, and that the fuzzer finds what is planted."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency.told import LARGEST, parse_json
from lpsnet.architecture import ArchitectureError
from lpsnet.errors import UserError
from lpsnet.zoo import canonical
from search.config import SearchConfig
from tests import fuzz
from tests.fuzz import Summary, Target, run_apart, run_here
from tests.fuzz_planted import deadly
from tests.fuzz_targets import TARGETS

FEW = {"run": 6, "page": 6, "predictor": 5, "video": 25, "data folder": 25, "export": 25, "graph": 60, "store": 40, "journal": 60}
FEW |= {"architecture": 2000, "recipe": 500, "table": 300, "config": 200, "picks": 200, "record": 200}


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_inputs_are_taken_or_refused(name: str) -> None:
    count = run_here(TARGETS[name], 12, 0, FEW.get(name, 80))
    assert not count.findings, count.findings
    assert count.inputs == FEW.get(name, 80) == count.accepted + count.refused
    assert count.accepted and (count.refused or name == "page")  # both ways are gone


def test_the_targets_are_a_million_in_all() -> None:
    assert sum(target.inputs for target in TARGETS.values()) == 1_000_000


def _crashes(folder: Path) -> fuzz.Attempt:
    def attempt(rng: random.Random) -> None:
        drawn = rng.randrange(10)
        if drawn == 0:
            raise KeyError("planted")
        if drawn < 5:
            raise UserError("refused")

    return attempt


def test_a_planted_crash_is_found_and_its_number_gives_it_again() -> None:
    planted = Target("planted", 0, _crashes, "")
    count = run_here(planted, 0, 0, 200)
    assert 5 < count.crashes < 50 and count.accepted + count.refused + count.crashes == 200
    number, text = count.findings[0]
    assert text == "KeyError: 'planted' at no line of the product"
    assert run_here(planted, 0, number, number + 1).crashes == 1


def test_what_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_S", 0.05)

    def endless(folder: Path) -> fuzz.Attempt:
        def attempt(rng: random.Random) -> None:
            while True:
                pass

        return attempt

    count = run_here(Target("planted", 0, endless, ""), 0, 0, 2)
    assert count.crashes == 2 and count.findings[0][1].startswith("TooSlow")


def test_a_lost_process_and_lost_memory_are_found_and_the_others_go_on(tmp_path: Path) -> None:
    planted, summary = Target("planted", 0, deadly, "nothing"), Summary(tmp_path)
    for count in run_apart(planted, 11, 0, 8):
        summary.add(count, 0.0)
    row = Summary(tmp_path).rows["planted", 11]  # as a later start reads it
    drawn = [random.Random(f"planted 11 {number}").randrange(12) for number in range(8)]
    assert 0 in drawn and 1 in drawn
    assert (row.inputs, row.crashes) == (8, drawn.count(0) + drawn.count(1))
    found = (tmp_path / "findings.csv").read_text()
    assert found.count("exit code 9") == drawn.count(0) and found.count("MemoryError") == drawn.count(1)
    assert Summary(tmp_path).done(planted, 11) == 8 and Summary(tmp_path).done(planted, 12) == 0


_ATOMS = st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | st.floats(allow_nan=False) | st.text(max_size=9)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    _ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=8
)


@settings(max_examples=50, deadline=None)
@given(_VALUES)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="BCR0123456789-_NLPSetMghostd bila", max_size=60))
def test_any_text_is_a_network_or_refused(text: str) -> None:
    try:
        assert canonical(canonical(text)) == canonical(text)
    except ArchitectureError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SearchConfig(data="synthetic", height=64, width=64).to_dict())), _VALUES)
def test_any_value_in_any_field_is_a_configuration_or_refused(field: str, value: Any) -> None:
    values = {**SearchConfig(data="synthetic", height=64, width=64).to_dict(), field: value}
    try:
        assert SearchConfig.from_dict(values).to_dict().keys() == values.keys()
    except UserError as error:
        assert str(error)
