"""ToolAlpaca: one record an instance or instruction; thoughts, calls and observations, or golden calls alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.records import RecordError
from alpha_umi.data.toolalpaca import FORMAT, GET_DETAILS
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage, schema_problem

FUNCTIONS = {
    "searchCats": 'Search for cats.\nParameters: {"color": "Required. string. One of: [red, blue]. The color.", '
    '"page": "integer. The page.", "tags": "Array[string].", "odd": "An odd thing"}\nOutput: Cats.\n - Format: json',
    "components": "",
}
API = {"Name": "Cats", "Category": "Animals", "Function_Description": FUNCTIONS}
LOG = " I look for cats.\nAction: searchCats\nAction Input: {}"
STEP = [["searchCats", '{"color": "red"}', LOG], "Status Code: 200."]
INSTANCE = {"input": "A cat?", "output": "Here is one.", "Final Thought": "Found it.", "intermediate_steps": [STEP]}


def instances(*given_instances: Any, **more: Any) -> dict[str, Any]:
    return API | {"Instances": list(given_instances)} | more


def golden(*calls: tuple[str, str]) -> dict[str, Any]:
    answers = [{"Action": name, "Action_Input": text} for name, text in calls]
    return API | {"Instructions": ["A cat?"], "Golden_Answers": [answers]}


def read(element: Any) -> Trajectory:
    (unit,) = FORMAT.units(element, None)
    return FORMAT.convert_record(unit, "r")


def test_the_evaluation_set_has_a_record_an_instruction(real_data: Path) -> None:
    path = real_data / "toolalpaca" / "eval_simulated.json"
    found = list(FORMAT.convert(path))
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    reasons = [one.reason for one in found if isinstance(one, Rejected)]
    assert len(trajectories) == 98
    assert len(reasons) == 2 and set(reasons) == {
        "golden[].Action_Input: not a JSON object, whatever its placeholders stand for"
    }
    assert not any(schema_problem(tool.schema) for trajectory in trajectories for tool in trajectory.tools)
    for trajectory in trajectories:
        turn = trajectory.messages[-1]
        assert isinstance(turn, AssistantMessage)
        assert {call.name for call in turn.tool_calls} <= {tool.name for tool in trajectory.tools}


def test_files_without_trajectories_are_not_recognised(real_data: Path) -> None:
    for name in ("public_apis.json", "evaluation_outputs/ToolAlpaca7b.json"):
        element = json.loads((real_data / "toolalpaca" / name).read_text(encoding="utf-8"))
        assert not FORMAT.looks_like(element)


# ---- instances ----------------------------------------------------------------------------------------------------


def test_a_step_is_a_rationale_a_call_and_its_observation() -> None:
    asked, called, reply, answer = read(instances(INSTANCE)).messages
    assert asked == UserMessage("A cat?")
    assert isinstance(called, AssistantMessage) and isinstance(answer, AssistantMessage)
    assert called.reasoning_content == "I look for cats."
    assert (called.tool_calls[0].name, called.tool_calls[0].arguments) == ("searchCats", '{"color": "red"}')
    assert reply == ToolMessage("call_1", "Status Code: 200.")
    assert (answer.reasoning_content, answer.content) == ("Found it.", "Here is one.")


@pytest.mark.parametrize(
    ("log", "rationale"),
    [
        (LOG, "I look for cats."),
        ("Thought: I look.\nASSISTANT Action: searchCats\nASSISTANT Action Input: {}", "I look."),
        ("The Action: a search.\nAction: searchCats", "The Action: a search."),
        ("Action: searchCats\nAction Input: {}", None),
        ("I look.", "I look."),
    ],
)
def test_the_thought_of_a_log_is_what_stands_before_its_action(log: str, rationale: str | None) -> None:
    step = [["searchCats", "{}", log], ""]
    called = read(instances(INSTANCE | {"intermediate_steps": [step]})).messages[1]
    assert isinstance(called, AssistantMessage) and called.reasoning_content == rationale


def test_a_malformed_call_keeps_its_text_and_observation() -> None:
    step = [["searchCats", "{oops ", LOG], "Invalid JSON format."]
    _, called, reply, _ = read(instances(INSTANCE | {"intermediate_steps": [step]})).messages
    assert isinstance(called, AssistantMessage) and isinstance(reply, ToolMessage)
    assert (called.tool_calls[0].arguments, called.tool_calls[0].malformed) == ("{oops ", True)


def test_a_hint_is_no_part_of_the_instruction() -> None:
    trajectory = read(instances(INSTANCE | {"input": "A cat?\nHint: searchCats"}))
    assert trajectory.instruction == "A cat?"
    assert trajectory.extra["toolalpaca"]["hint"] == "searchCats"


def test_an_element_has_a_record_for_each_instance() -> None:
    assert len(list(FORMAT.units(instances(INSTANCE, INSTANCE), None))) == 2


# ---- golden answers -----------------------------------------------------------------------------------------------


def test_golden_answers_are_one_turn_of_calls() -> None:
    asked, called = read(golden(("getDetails", '{"Question": "Which?"}'), ("searchCats", "{ }"))).messages
    assert asked == UserMessage("A cat?")
    assert isinstance(called, AssistantMessage) and called.extra == {}
    assert [(c.name, c.arguments) for c in called.tool_calls] == [
        ("getDetails", '{"Question": "Which?"}'),
        ("searchCats", "{ }"),
    ]


def test_a_placeholder_becomes_a_string_and_the_text_is_kept() -> None:
    text = '{"color": ${color from getDetails}, "page": 1}'
    called = read(golden(("[Optional]searchCats", text))).messages[1]
    assert isinstance(called, AssistantMessage)
    assert called.tool_calls[0].parsed() == {"color": "${color from getDetails}", "page": 1}
    assert called.tool_calls[0].name == "searchCats"
    assert called.extra["toolalpaca"] == {"optional": ["call_1"], "Action_Input": {"call_1": text}}


# ---- tools --------------------------------------------------------------------------------------------------------


def test_a_description_becomes_a_tool_with_a_json_schema() -> None:
    details, search = read(instances(INSTANCE)).tools
    assert details == GET_DETAILS
    assert (search.name, search.description) == ("searchCats", "Search for cats.\nOutput: Cats.\n - Format: json")
    assert search.parameters == {
        "type": "object",
        "properties": {
            "color": {"type": "string", "enum": ["red", "blue"], "description": "One of: [red, blue]. The color."},
            "page": {"type": "integer", "description": "The page."},
            "tags": {"type": "array", "items": {"type": "string"}},
            "odd": {"description": "An odd thing"},
        },
        "required": ["color"],
    }


def test_function_names_become_legal() -> None:
    functions = {"get Cats!": FUNCTIONS["searchCats"]}
    step = [["get Cats!", "{}", ""], ""]
    element = instances(INSTANCE | {"intermediate_steps": [step]}, Function_Description=functions)
    trajectory = read(element)
    called = trajectory.messages[1]
    assert isinstance(called, AssistantMessage)
    assert called.tool_calls[0].name == trajectory.tools[1].name == "get_Cats"
    assert trajectory.tools[1].extra == {"toolalpaca": {"function": "get Cats!"}}


# ---- rejected records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (instances("an error"), "instance: Input should be an object"),
        (instances({"input": "x"}), r"instance\.output: Field required"),
        (instances(INSTANCE | {"intermediate_steps": [["x"]]}), r"not \[\[action, action input, log\], observation\]"),
        (instances(INSTANCE | {"output": "Agent stopped due to iteration limit or time limit."}), "was stopped"),
        (instances(INSTANCE, Function_Description={"f": "?"}), "a text without its parameters in JSON"),
        (instances(INSTANCE, Function_Description={"f": "d\nParameters: {oops}"}), "without its parameters in JSON"),
        (golden(), "no instruction with a golden answer"),
        (golden(("searchCats", '{"color": ${color}"}')), "not a JSON object, whatever its placeholders"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(element: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        read(element)


def test_it_recognises_its_own_elements_only() -> None:
    assert FORMAT.looks_like(instances(INSTANCE))
    assert FORMAT.looks_like(golden(("searchCats", "{}")))
    assert not FORMAT.looks_like(API)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "output", "Action", "Action_Input"]), inner, max_size=3)
    ),
)
STEPS = st.lists(st.just(STEP) | JSON, max_size=3)
INSTANCES = st.fixed_dictionaries({"input": st.text(), "output": st.text()}, optional={"intermediate_steps": STEPS})
CALLS = st.fixed_dictionaries({"Action": st.text(max_size=4), "Action_Input": st.sampled_from(["{}", "{${x}}", ""])})
UNITS = st.fixed_dictionaries(
    {"api": st.just(API)},
    optional={
        "instance": INSTANCES | JSON,
        "instruction": st.text() | JSON,
        "golden": st.lists(CALLS | JSON, max_size=3) | JSON,
    },
)


@given(UNITS | JSON)
def test_any_record_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        found = FORMAT.convert_record(anything, "r").messages
    except RecordError as error:
        assert str(error)
        return
    turns = [m for m in found if isinstance(m, AssistantMessage)]
    wanted = (
        anything["golden"] if anything.get("instance") is None else anything["instance"].get("intermediate_steps", [])
    )
    assert sum(len(turn.tool_calls) for turn in turns) == len(wanted)
