"""The open world: any name exists once it is asked for, and stays what it was."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.toolworld import load_catalogue, make_tasks
from alpha_umi.toolworld.catalogue import READING, Api
from alpha_umi.toolworld.open_world import OpenWorld, relevant_tools
from alpha_umi.toolworld.values import draw

APIS = load_catalogue().apis
TRAINING = [api for item in load_catalogue().partition("train") for api in item.apis if api.mirror_of is None]


def world_with(api: Api, seed: str = "open") -> OpenWorld:
    """A world that offers this API."""
    query = " ".join((api.about, api.record, *api.ask, *(param.field.words for param in api.params)))
    for count in (5, 20, len(TRAINING)):
        world = OpenWorld(query, seed, count)
        if api.name in {tool.name for tool in world.tools}:
            return world
    raise AssertionError(api.name)


def some_arguments(api: Api, rng: Random, optional: bool = True) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for param in api.params:
        if param.required or optional:
            field = param.field
            out[param.name] = ["Velora", "Tamiro"] if field.kind == "list" else draw(rng, field, "train")
    return out


# ---- which tools are offered


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("Find hotels in Velora for at most 120.", "lodging"),
        ("What is the weather in Tamiro tomorrow? Will there be rain?", "weather"),
        ("Convert 20 usd to eur.", "money"),
    ],
)
def test_the_tools_offered_fit_the_query(query: str, wanted: str):
    names = [tool.name for tool in relevant_tools(query)]
    assert wanted in {APIS[name].category for name in names}


def test_an_instruction_of_the_training_data_finds_its_tools_most_of_the_time():
    tasks = [task for task in make_tasks("I1-Inst", 200) if task.kind in ("single", "chain")]
    found = 0
    for task in tasks:
        offered = {tool.name for tool in relevant_tools(task.instruction, 5)}
        found += all((APIS[step.tool].mirror_of or step.tool) in offered for step in task.steps)
    assert found > 0.6 * len(tasks)


@pytest.mark.parametrize("count", [1, 5, 20])
def test_as_many_tools_are_offered_as_were_asked_for(count: int):
    tools = relevant_tools("Book me a hotel room, please", count)
    assert len({tool.name for tool in tools}) == len(tools) == count


@given(st.text())
def test_any_query_is_offered_tools_always_the_same(query: str):
    tools = relevant_tools(query)
    assert len(tools) == 5
    assert relevant_tools(query) == tools


def test_held_out_tools_are_never_offered():
    names = {tool.name for tool in relevant_tools("anything", len(TRAINING))}
    held_out = {api.name for part in ("tool", "cat") for item in load_catalogue().partition(part) for api in item.apis}
    assert names and not names & held_out


# ---- calls


@pytest.mark.parametrize("api", TRAINING, ids=lambda api: api.name)
def test_every_api_gives_a_result(api: Api):
    for optional in (True, False):
        reply = json.loads(world_with(api).call(api.name, some_arguments(api, Random(api.name), optional)))
        assert "error" not in reply, reply
        if api.op == "search":
            assert len(reply["results"]) >= 2
            assert None not in reply["results"]
        else:
            assert set(api.gives) <= set(reply)
            assert None not in reply.values()


@pytest.mark.parametrize("api", [api for api in TRAINING if api.op in READING], ids=lambda api: api.name)
def test_asking_again_gives_the_same(api: Api):
    arguments = some_arguments(api, Random(api.name))
    world = world_with(api)
    first = world.call(api.name, arguments)
    assert world.call(api.name, arguments) == first, "within a world"
    assert world_with(api).call(api.name, arguments) == first, "and in another one"


def test_another_seed_gives_other_rows():
    apis = [api for api in TRAINING if api.op == "get"][:30]
    pairs = [
        tuple(world_with(api, seed).call(api.name, some_arguments(api, Random(api.name))) for seed in ("a", "b"))
        for api in apis
    ]
    assert sum(a != b for a, b in pairs) > 20


def test_what_was_changed_stays_changed():
    cancel = next(api for api in TRAINING if api.op == "cancel")
    world, arguments = world_with(cancel), some_arguments(cancel, Random(1))
    assert "error" not in json.loads(world.call(cancel.name, arguments))
    assert "already" in json.loads(world.call(cancel.name, arguments))["error"]


def test_a_row_that_was_made_up_for_one_call_is_there_for_the_next():
    """Two APIs over one table, asked about the same name, speak of the same row."""
    reading = [api for api in TRAINING if api.op == "get" and len(api.keys) == 1]
    pairs = [
        (a, b) for a in reading for b in reading
        if a.table == b.table and a.name < b.name and a.keys == b.keys and a.gives != b.gives
    ]  # fmt: skip
    assert pairs
    a, b = pairs[0]
    arguments = some_arguments(a, Random(2))

    def ask(*order: Api) -> dict[str, str]:
        world = OpenWorld("anything", count=len(TRAINING))
        return {api.name: world.call(api.name, arguments) for api in order}

    assert ask(a, b) == ask(b, a)


# ---- calls that make no sense


def test_a_tool_that_is_not_offered_is_unknown():
    world = OpenWorld("Find hotels in Velora.", count=1)
    other = next(api for api in TRAINING if api.name != world.tools[0].name)
    for name in (other.name, "nothing_like_it", ""):
        assert json.loads(world.call(name, {})) == {"error": f"no tool named {name}"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_no_arguments_break_it(data: st.DataObject):
    api = data.draw(st.sampled_from(TRAINING))
    names = [param.name for param in api.params]
    arguments = some_arguments(api, Random(0)) | data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=3))
    reply = json.loads(_EVERYTHING.call(api.name, arguments))
    assert isinstance(reply, dict)


_EVERYTHING = OpenWorld("anything", count=len(TRAINING))
