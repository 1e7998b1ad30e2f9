"""The configuration of a search: what it refuses, how it is stored, and in what two of them differ."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency.measurement import BOUNDARIES, DEVICES, TimingPlan
from lpsnet.architecture import NAMED, Architecture, ArchitectureError
from lpsnet.errors import UserError
from lpsnet.recipe import TrainRecipe, proxy_recipe
from search.config import RacePlan, SearchConfig
from search.space import Bounds

CONFIG = SearchConfig(data="synthetic", height=32, width=64, steps=2, proxy=proxy_recipe(10))

configs = st.builds(
    SearchConfig,
    data=st.sampled_from(["synthetic", "camvid:/data/camvid", "camvid:~/a:b"]),
    height=st.integers(4, 4096),
    width=st.integers(4, 4096),
    steps=st.integers(0, 50),
    start=st.sampled_from([*NAMED, "B2-1-1-1-1_C4-8-16-32-32_R4-2_none"]),
    backend=st.sampled_from(["ort", "torch"]),
    device=st.sampled_from(DEVICES),
    boundary=st.sampled_from(BOUNDARIES),
    threads=st.integers(1, 64),
    training_device=st.sampled_from(DEVICES),
    plan=st.builds(TimingPlan, warmup_s=st.floats(0, 9), min_samples=st.integers(5, 99), min_s=st.floats(0, 9), max_s=st.floats(0.1, 99)),
    proxy=st.builds(TrainRecipe, iterations=st.integers(1, 10**6), learning_rate=st.floats(1e-6, 1), flip=st.booleans()),
    bounds=st.builds(Bounds, max_scale=st.integers(8, 32).map(lambda eighths: eighths / 8), max_width=st.integers(160, 4096)),
    seed=st.integers(0, 2**31),
    storage=st.sampled_from(["", "postgresql://host/db"]),
)


class TestSearchConfig:
    @pytest.mark.parametrize(("start", "least"), [("N0", 2), ("LPS-Net-S", 4), ("B1-1-1-1-1_C4-8-16-32-32_R8-1", 8)])
    def test_an_input_too_small_for_the_start_is_refused_with_the_least_that_works(self, start: str, least: int) -> None:
        dataclasses.replace(CONFIG, start=start, height=least, width=least)
        for size in ({"height": least - 1}, {"width": least - 1}):
            with pytest.raises(UserError, match=f"too small for the start .*the least size that works is {least}x{least}"):
                dataclasses.replace(CONFIG, start=start, **size)

    def test_a_storage_that_is_no_url_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"storage takes a database URL, .* got 'garbage'"):
            dataclasses.replace(CONFIG, storage="garbage")

    @pytest.mark.parametrize("ending", ["_residual", "_bilateral-a"])
    def test_what_knows_plain_networks_only_refuses_a_start_of_others(self, ending: str) -> None:
        other = dataclasses.replace(CONFIG, start=f"{NAMED['N0']}{ending}")
        for change in ({"race": RacePlan(inherit=True)}, {"predictor": "device"}):
            dataclasses.replace(CONFIG, **change)
            with pytest.raises(ArchitectureError, match=f"for conv3x3 blocks only, .*; got {other.start}"):
                dataclasses.replace(other, **change)

    @given(configs)
    def test_plain_values_and_json_have_an_inverse(self, config: SearchConfig) -> None:
        assert SearchConfig.from_dict(config.to_dict()) == config
        again = SearchConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert again.differences(config) == []

    @given(configs, configs)
    def test_differences_are_there_just_where_more_than_the_steps_differs(self, one: SearchConfig, other: SearchConfig) -> None:
        assert (one.differences(other) == []) == (dataclasses.replace(one, steps=0) == dataclasses.replace(other, steps=0))
        assert len(one.differences(other)) == len(other.differences(one))

    @pytest.mark.parametrize("name", list(NAMED))
    def test_a_start_given_by_name_or_by_text_is_the_same(self, name: str) -> None:
        by_name, by_text = (dataclasses.replace(CONFIG, start=start) for start in (name.lower(), str(NAMED[name])))
        assert by_name == by_text
        assert by_name.start == str(NAMED[name])
        assert by_name.start_architecture == NAMED[name]

    def test_the_order_of_scales_in_a_start_does_not_matter(self) -> None:
        one, other = (dataclasses.replace(CONFIG, start=f"B1-1-1-1-1_C4-8-16-32-32_R{scales}") for scales in ("2-6", "6-2"))
        assert one == other

    def test_the_size_is_height_and_width(self) -> None:
        assert CONFIG.size == (32, 64)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"height": 0}, "height must be at least 1, got 0"),
            ({"width": -3}, "width must be at least 1, got -3"),
            ({"threads": 0}, "threads must be at least 1, got 0"),
            ({"steps": -1}, "steps must be 0 to 100000, got -1"),
            ({"steps": 10**400}, "steps must be 0 to 100000, got 1000"),
            ({"device": "gpu"}, "unknown device 'gpu'; there are: cpu, cuda"),
            ({"training_device": "cuda:0"}, "unknown training device 'cuda:0'; there are: cpu, cuda"),
            ({"boundary": "pixels"}, "unknown boundary 'pixels'; there are: scores, logits, labels"),
            ({"data": "nowhere"}, "unknown data set 'nowhere'; there are: synthetic, camvid"),
            ({"data": "camvid"}, "data set 'camvid' needs its folder: write camvid:PATH"),
            ({"bounds": Bounds(max_width=16)}, f"the start {NAMED['N0']} lies outside the bounds"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_value_out_of_its_range_is_refused_by_name(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            dataclasses.replace(CONFIG, **change)

    def test_a_start_that_is_no_network_is_refused(self) -> None:
        with pytest.raises(ArchitectureError, match="N1"):
            dataclasses.replace(CONFIG, start="N1")

    @pytest.mark.parametrize("field", ["data", "height", "plan", "proxy", "bounds"])
    def test_stored_values_that_lack_a_field_are_refused(self, field: str) -> None:
        values = CONFIG.to_dict()
        del values[field]
        with pytest.raises(UserError, match=f"does not fit this version.*{field}"):
            SearchConfig.from_dict(values)

    @pytest.mark.parametrize("part", ["", "plan", "proxy", "bounds"])
    def test_stored_values_with_an_unknown_field_are_refused(self, part: str) -> None:
        values = CONFIG.to_dict()
        (values[part] if part else values)["colour"] = 1
        with pytest.raises(UserError, match=r"does not fit this version.*colour"):
            SearchConfig.from_dict(values)

    def test_differences_name_nested_fields_and_leave_out_the_steps(self) -> None:
        other = dataclasses.replace(CONFIG, steps=9, seed=1, proxy=proxy_recipe(400), bounds=Bounds(max_paths=2))
        assert CONFIG.differences(other) == [
            "proxy.iterations: 10, not 400",
            "proxy.warmup_iterations: 1, not 20",
            "bounds.max_paths: 3, not 2",
            "seed: 0, not 1",
        ]
        assert CONFIG.differences(dataclasses.replace(CONFIG, steps=9)) == []

    def test_a_configuration_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            CONFIG.seed = 1  # type: ignore[misc]
        assert Architecture.parse(CONFIG.start) == NAMED["N0"]
