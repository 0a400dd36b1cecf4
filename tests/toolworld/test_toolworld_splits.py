from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter

import pytest

from alpha_umi.toolworld import KINDS, SPLITS, Task, load_catalogue, make_task, make_tasks, solve, split_trajectories
from alpha_umi.toolworld.grammar import spoken
from alpha_umi.toolworld.tasks import NOT_AUTHORISED, TRANSIENT, Ref
from alpha_umi.toolworld.values import words

ALL_SPLITS = ("train", *SPLITS)
COLLECTIONS = load_catalogue().collections
CAPITALISED = re.compile(r"\b[A-Z][a-z]+\b")


def homes(task: Task) -> set[str]:
    """The collections whose tools solve the task, its replacement tool included."""
    apis = load_catalogue().apis
    names = {step.tool for step in task.steps}
    if task.kind == "alternative":
        names |= {api.name for api in apis.values() if api.mirror_of in {fault.tool for fault in task.faults}}
    return {apis[name].collection for name in names}


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    program = (
        "from alpha_umi.toolworld import *\n"
        "for split in ('train', *SPLITS):\n"
        "    for one in split_trajectories(split, 20, seed=3): print(one.to_json())\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8")
    here = [one.to_json() for split in ALL_SPLITS for one in split_trajectories(split, 20, seed=3)]
    assert out.stdout.splitlines() == here


def test_a_task_does_not_depend_on_how_many_are_made():
    short, long = list(make_tasks("train", 5)), list(make_tasks("train", 50))
    assert long[:5] == short
    assert make_task("train", 37) == long[37]


def test_tasks_are_made_on_demand():
    assert len(list(itertools.islice(make_tasks("train", 10**12), 3))) == 3


def test_another_seed_gives_other_tasks():
    one, other = ({task.instruction for task in make_tasks("train", 100, seed=seed)} for seed in (0, 1))
    assert len(one & other) <= 1


def test_an_unknown_split_is_named_at_once():
    with pytest.raises(ValueError, match="I4-Inst"):
        make_tasks("I4-Inst", 1)


def test_a_task_survives_a_round_trip_through_json(tasks):
    for some in tasks.values():
        for task in some[:100]:
            again = Task.from_json(task.to_json())
            assert again == task
            assert solve(again) == solve(task)


def test_easy_tasks_have_two_tools_and_one_call():
    for task in make_tasks("train", 100, easy=1.0):
        calls = [call for message in solve(task).messages for call in getattr(message, "tool_calls", ())]
        assert (task.kind, len(task.tools), len(calls)) == ("single", 2, 1)


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_a_list_has_four_to_six_different_tools(tasks, split):
    for task in tasks[split]:
        names = [tool.name for tool in task.tools]
        assert 4 <= len(names) <= 6
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_every_tool_comes_from_the_splits_own_partition(tasks, split):
    partition = {"Tool": "tool", "Cat": "cat"}.get(split.partition("-")[2], "train")
    tools = {tool.name for task in tasks[split] for tool in task.tools}
    assert {COLLECTIONS[name.partition("_")[0]].partition for name in tools} == {partition}


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_a_task_stays_in_its_collection_or_category_or_crosses_categories(tasks, split):
    for task in tasks[split]:
        used = homes(task)
        categories = {COLLECTIONS[name].category for name in used}
        if task.shape == "I1":
            assert len(used) == 1
        else:
            assert len(used) > 1
            assert (len(categories) == 1) == (task.shape == "I2")
        assert split == "train" or split.startswith(task.shape)


def test_training_mixes_all_three_shapes(tasks):
    assert {task.shape for task in tasks["train"]} == {"I1", "I2", "I3"}


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_every_kind_and_fault_occurs_wherever_it_makes_sense(tasks, split):
    some = tasks[split]
    expected = set(KINDS) - (set() if split.startswith(("I1", "train")) else {"single"})
    assert {task.kind for task in some} == expected
    faults = [fault for task in some for fault in task.faults]
    assert {fault.kind for fault in faults} == {*TRANSIENT, NOT_AUTHORISED}
    assert {fault.nth for fault in faults} == {0, 1}


def test_the_kinds_of_training_tasks_have_the_intended_shares(training_tasks):
    counts = Counter(task.kind for task in training_tasks)
    share = {kind: count / len(training_tasks) for kind, count in counts.items()}
    clean = sum(share[kind] for kind in ("single", "multi", "chain", "parallel"))
    faulty = sum(share[kind] for kind in ("retry", "alternative", "blocked", "empty"))
    assert clean == pytest.approx(0.55, abs=0.04)
    assert share["missing"] == pytest.approx(0.12, abs=0.03)
    assert share["impossible"] == pytest.approx(0.08, abs=0.03)
    assert faulty == pytest.approx(0.25, abs=0.03)


def test_held_out_tools_and_values_never_occur_in_training(training):
    held_out = [item for item in COLLECTIONS.values() if item.partition != "train"]
    names = {item.name for item in held_out} | {api.name for item in held_out for api in item.apis}
    unseen = set(words("held-out"))
    for trajectory in training:
        text = trajectory.to_json()
        assert not set(re.findall(r"[a-z]+(?:_[a-z]+)*", text)) & names
        assert not set(CAPITALISED.findall(text)) & unseen


@pytest.mark.parametrize("split", ["I1-Tool", "I1-Cat", "I2-Cat"])
def test_unseen_collections_are_tested_with_unseen_names_only(solved, split):
    seen = set(words("train"))
    assert not any(set(CAPITALISED.findall(one.to_json())) & seen for _, one in solved[split])


def test_no_test_instruction_is_a_training_instruction(training_tasks, tasks):
    trained = {task.instruction for task in training_tasks}
    for split in SPLITS:
        assert not trained & {task.instruction for task in tasks[split]}


def test_the_same_apis_with_the_same_values_are_never_in_training_and_in_a_test(training_tasks, tasks):
    def contents(task: Task) -> tuple[object, ...]:
        values = [value for step in task.steps for value in step.arguments.values() if not isinstance(value, Ref)]
        return tuple(sorted(step.tool for step in task.steps)), tuple(sorted(map(spoken, values)))

    trained = {content for content in map(contents, training_tasks) if content[1]}
    for split in ("I1-Inst", "I2-Inst", "I3-Inst"):
        assert not trained & {contents(task) for task in tasks[split]}
