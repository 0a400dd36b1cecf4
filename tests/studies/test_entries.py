"""What a study consists of, in which order, and what each entry needs."""

from __future__ import annotations

import pytest

from alpha_umi.errors import UserError
from alpha_umi.studies.entries import BOTH_SIZES, PAPER, Compose, Search, Train, chosen_entries, study_entries
from alpha_umi.studies.runs import Study
from alpha_umi.studies.scales import SCALES, scale_of
from alpha_umi.training.recipe import GlpftRecipe, parse_recipe


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_what_an_entry_needs_comes_before_it(scale):
    seen: set[str] = set()
    for entry in study_entries(scale, 2):
        assert set(entry.needs) <= seen
        assert entry.name not in seen
        seen.add(entry.name)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_recipe_is_one(scale):
    for entry in study_entries(scale, 1):
        if isinstance(entry.plan, Train):
            stage_1 = {"stage_1": "elsewhere"} if entry.plan.stage_1 else {}
            assert isinstance(parse_recipe({**entry.plan.recipe, "out": "x", **stage_1}), GlpftRecipe)


def test_every_system_of_the_paper_is_there_at_the_first_size_and_three_at_the_second():
    scale = scale_of("nano")
    entries = study_entries(scale, 1)
    assert set(PAPER) <= {entry.system for entry in entries if entry.size == scale.base}
    assert {entry.system for entry in entries if entry.size != scale.base} == set(BOTH_SIZES)


def test_the_systems_of_the_paper_see_the_same_trajectories():
    scale = scale_of("nano")
    plans = {e.system: e.plan.recipe for e in study_entries(scale, 1) if isinstance(e.plan, Train) and e.size == "nano"}
    whole = {"trajectories": scale.trajectories, "first": 0}
    for system in ("single", "single-multitask", "umi"):
        assert whole.items() <= plans[system]["global_stage"].items()
    for system in ("multi-one-stage", "umi"):
        assert whole.items() <= plans[system]["local_stage"].items()
    first, second = plans["umi-no-reuse"]["global_stage"], plans["umi-no-reuse"]["local_stage"]
    assert first["first"] + first["trajectories"] == second["first"]
    assert second["first"] + second["trajectories"] == scale.trajectories


def test_chosen_systems_bring_what_they_need():
    chosen = chosen_entries(study_entries(scale_of("smoke"), 1), ["umi-lora", "single-dfsdt"])
    assert [entry.system for entry in chosen] == ["single", "umi", "umi-lora", "single-dfsdt"]


def test_a_system_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="there is no such system; there are single"):
        chosen_entries(study_entries(scale_of("smoke"), 1), ["umi-xl"])
    with pytest.raises(UserError, match="--scale huge"):
        scale_of("huge")


def test_an_entrys_fingerprint_changes_with_what_it_is_made_from(tmp_path):
    def fingerprints(scale):
        study = Study(scale, study_entries(scale, 1), tmp_path, tmp_path)
        return {entry.system: study.fingerprint(entry) for entry in study.entries if entry.size == scale.base}

    smoke = scale_of("smoke")
    before = fingerprints(smoke)
    other = fingerprints(type(smoke)(**{**vars(smoke), "local": {**smoke.local, "learning_rate": 1e-4}}))
    changed = {system for system in before if before[system] != other[system]}
    assert {"umi", "umi-swapped", "umi-lora", "umi-dfsdt", "single-compute", "single-best-of-n"} <= changed
    assert not {"single", "multi-one-stage", "single-dfsdt"} & changed


def test_roles_are_swapped_and_mixed_by_composition():
    entries = {entry.system: entry.plan for entry in study_entries(scale_of("smoke"), 1)}
    swapped = entries["umi-swapped"]
    assert isinstance(swapped, Compose) and all(role != theirs for role, (_, theirs) in swapped.parts.items())
    mixed = entries["umi-large-planner"]
    assert isinstance(mixed, Compose) and "deeper" in mixed.parts["planner"][0]
    assert isinstance(entries["umi-dfsdt"], Search)
