from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import ToolError
from alpha_umi.toolworld import Fault, Task, World, fault_text, load_catalogue, make_tasks
from alpha_umi.toolworld.catalogue import WRITING

TASKS = [task for task in make_tasks("train", 60, seed=2) if not task.faults]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def first(kind: str, op: str | None = None) -> Task:
    """The first task of a kind, whose first call is the operation."""
    apis = load_catalogue().apis
    return next(
        task
        for task in make_tasks("I1-Inst", 2000)
        if task.kind == kind and (op is None or apis[task.steps[0].tool].op == op)
    )


@st.composite
def calls(draw: st.DrawFn) -> tuple[Task, str, dict[str, object]]:
    task = draw(st.sampled_from(TASKS))
    tool = draw(st.sampled_from(task.tools))
    names = st.sampled_from([*tool.parameters["properties"], "nonsense"])
    known = [value for rows in task.tables.values() for row in rows for value in row.values()]
    return task, tool.name, draw(st.dictionaries(names, JSON | st.sampled_from(known), max_size=4))


@given(calls())
def test_any_arguments_get_a_json_object_and_never_an_exception(call):
    task, name, arguments = call
    observation = json.loads(World(task).call(name, arguments))
    assert isinstance(observation, dict)


@pytest.mark.parametrize("arguments", [None, [], "text", 7, math.nan])
def test_arguments_that_are_no_object_are_answered_with_an_error(arguments):
    assert "error" in json.loads(World(TASKS[0]).call(TASKS[0].tools[0].name, arguments))


def test_a_tool_that_is_not_in_the_list_does_not_exist():
    world = World(TASKS[0])
    listed = {tool.name for tool in world.tools}
    other = next(name for name in load_catalogue().apis if name not in listed)
    assert json.loads(world.call(other, {})) == {"error": f"no tool named {other}"}


def test_an_unknown_id_is_named_in_the_error():
    task = first("single", "cancel")
    name, arguments = task.steps[0].tool, task.steps[0].arguments
    key, value = next(iter(arguments.items()))
    unknown = value.split("-")[0] + "-0007"
    record = load_catalogue().apis[name].record
    assert json.loads(World(task).call(name, {key: unknown})) == {"error": f"no {record} with id {unknown}"}


def test_what_is_cancelled_cannot_be_cancelled_again():
    task = first("single", "cancel")
    world = World(task)
    observation = json.loads(world.call(task.steps[0].tool, task.steps[0].arguments))
    again = json.loads(world.call(task.steps[0].tool, task.steps[0].arguments))
    assert again["error"].endswith(f"is already {observation['status']}")


def test_reading_leaves_no_trace_and_writing_does():
    apis = load_catalogue().apis
    for task in TASKS:
        world = World(task)
        for tool in task.tools:
            start = world.state()
            world.call(tool.name, {})
            assert world.state() == start
        for step in islice(task.steps, 1):
            if task.kind in ("single", "multi"):
                start = world.state()
                world.call(step.tool, step.arguments)
                assert (world.state() != start) == (apis[step.tool].op in WRITING)


def test_the_ids_of_new_records_do_not_depend_on_the_order_of_creation():
    task = next(t for t in make_tasks("train", 4000) if t.kind == "parallel" and _creates_twice(t))
    one, other = World(task), World(task)
    for step in task.steps:
        one.call(step.tool, step.arguments)
    for step in reversed(task.steps):
        other.call(step.tool, step.arguments)
    assert one.state() == other.state()


def _creates_twice(task: Task) -> bool:
    return all(load_catalogue().apis[step.tool].op == "create" for step in task.steps)


def test_restoring_a_snapshot_brings_back_state_and_faults():
    task = first("single", "create")
    task = replace(task, faults=(Fault(task.steps[0].tool, "timeout", 2),))
    name, arguments = task.steps[0].tool, dict(task.steps[0].arguments)
    world = World(task)
    start, before = world.snapshot(), world.state()
    first_reply = world.call(name, arguments)
    after = world.snapshot()
    with pytest.raises(ToolError):
        world.call(name, arguments)
    world.restore(start)
    assert world.state() == before
    assert world.call(name, arguments) == first_reply
    world.restore(after)
    with pytest.raises(ToolError):
        world.call(name, arguments)
    world.restore(start)
    assert world.state() == before


def test_only_a_snapshot_can_be_restored():
    with pytest.raises(TypeError):
        World(TASKS[0]).restore({"tables": {}})


def test_a_world_does_not_change_its_task():
    task = first("single", "update")
    text = task.to_json()
    World(task).call(task.steps[0].tool, task.steps[0].arguments)
    assert task.to_json() == text


def test_a_fault_happens_at_the_planned_call_whatever_the_arguments():
    task = first("single", "get")
    name, arguments = task.steps[0].tool, dict(task.steps[0].arguments)
    world = World(replace(task, faults=(Fault(name, "server_error", 2),)))
    world.call(name, {})
    with pytest.raises(ToolError) as caught:
        world.call(name, arguments)
    assert caught.value.kind == "server_error"
    assert fault_text(caught.value) == '{"error": "server_error: internal error 500"}'
    assert "error" not in json.loads(world.call(name, arguments))


@given(calls())
def test_what_the_schema_refuses_the_world_refuses_too(call):
    task, name, arguments = call
    parameters = load_catalogue().apis[name].tool.parameters
    if not jsonschema.Draft202012Validator(parameters).is_valid(arguments):
        assert "error" in json.loads(World(task).call(name, arguments))


def test_the_oracles_arguments_are_valid_by_the_schema(solved):
    for task, trajectory in solved["train"]:
        validators = {tool.name: jsonschema.Draft202012Validator(tool.parameters) for tool in task.tools}
        for message in trajectory.messages:
            for call in getattr(message, "tool_calls", ()):
                validators[call.name].validate(json.loads(call.arguments))
