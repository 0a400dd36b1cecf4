"""OpenAI chat data: every spelling is read into the record and written again as it came."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import convert_file
from alpha_umi.data.openai_messages import FORMAT
from alpha_umi.data.records import BrokenLine, RecordError, read_records
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

FIND: dict[str, Any] = {
    "name": "find",
    "description": "Finds things.",
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
}
WRAPPED = {"type": "function", "function": FIND}
ASKED = {"role": "user", "content": "Find it."}
SAID = {"role": "assistant", "content": "Found."}


def call(arguments: Any = '{"q": "x"}', call_id: str = "c1", **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "find", "arguments": arguments}} | more


def calling(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls or [call()])} | more


def observed(content: Any = "here", call_id: str = "c1", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content} | more


def record(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tools": [WRAPPED], "messages": [ASKED, *messages]} | more


def converted(value: Any) -> Trajectory:
    """The trajectory of a record, after making sure that it is written again as it came and survives its own JSONL."""
    trajectory = FORMAT.convert_record(value, "r")
    assert written(trajectory) == value
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
    assert written(Trajectory.from_json(trajectory.to_json())) == value
    return trajectory


def written(trajectory: Trajectory) -> Any:
    assert FORMAT.write is not None
    return FORMAT.write(trajectory)


def turn(*messages: dict[str, Any]) -> AssistantMessage:
    message = converted(record(*messages)).messages[1]
    assert isinstance(message, AssistantMessage)
    return message


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_plain_record_needs_nothing_in_extra() -> None:
    system = {"role": "system", "content": "Be brief."}
    trajectory = converted(record(system, calling(), observed(), SAID | {"reasoning_content": "It is here."}))
    assert trajectory.extra == {} and all(message.extra == {} for message in trajectory.messages)
    assert trajectory.tools == (Tool(json.dumps(FIND)),)
    assert trajectory.messages == (
        UserMessage("Find it."),
        SystemMessage("Be brief."),
        AssistantMessage(tool_calls=(ToolCall("c1", "find", '{"q": "x"}'),)),
        ToolMessage("c1", "here"),
        AssistantMessage("It is here.", content="Found."),
    )


def test_arguments_that_are_a_string_stay_verbatim() -> None:
    (made,) = turn(calling(call('{ "q":1.00}\n'))).tool_calls
    assert made == ToolCall("c1", "find", '{ "q":1.00}\n')


def test_arguments_that_are_an_object_become_their_json() -> None:
    (made,) = turn(calling(call({"q": "ü", "n": [1, None]}))).tool_calls
    assert made.arguments == '{"q": "ü", "n": [1, null]}' and not made.malformed


@pytest.mark.parametrize("arguments", ["", "{oops", "[1]", '"x"', "null", [1], None, 3, 1.5])
def test_arguments_that_are_no_object_make_the_call_malformed(arguments: Any) -> None:
    message = turn(calling(call(arguments)), observed("no"))
    (made,) = message.tool_calls
    assert made.malformed and made.name == "find"
    assert made.arguments == (arguments if isinstance(arguments, str) else json.dumps(arguments))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "content"])
def test_the_rationale_of_a_call_is_what_was_thought_or_said_before_it(key: str) -> None:
    assert turn(calling(**{key: "I look."})).reasoning_content == "I look."


def test_what_was_thought_and_said_is_joined_and_taken_apart_again() -> None:
    message = turn(calling(reasoning="Hm.", reasoning_content="Hm.", content="I look."))
    assert message.reasoning_content == "Hm.\n\nI look."


@pytest.mark.parametrize("content", ["", "\n\n", [], [{"type": "text", "text": ""}]])
def test_blank_text_beside_a_call_is_no_rationale(content: Any) -> None:
    assert turn(calling(content=content)).reasoning_content is None


def test_a_dropped_rationale_is_not_written_again() -> None:
    source = record(calling(reasoning="Hm.", content=[{"type": "text", "text": "I look."}]), observed())
    trajectory = converted(source)
    user, message, observation = trajectory.messages
    bare = AssistantMessage(None, message.tool_calls, extra=message.extra)  # type: ignore[union-attr]
    changed = Trajectory(trajectory.tools, (user, bare, observation), extra=trajectory.extra)
    assert written(changed)["messages"] == [ASKED, calling(), observed()]


def test_a_changed_rationale_goes_where_the_old_one_was() -> None:
    trajectory = converted(record(calling(content="I look.")))
    user, message = trajectory.messages
    changed = AssistantMessage("Let me see.", message.tool_calls, extra=message.extra)  # type: ignore[union-attr]
    assert written(Trajectory((), (user, changed)))["messages"][1]["content"] == "Let me see."


def test_a_refusal_tells_the_user_that_the_agent_gives_up() -> None:
    message = turn({"role": "assistant", "content": None, "refusal": "I can't.", "reasoning_content": "No way."})
    assert (message.refusal, message.content, message.reasoning_content) == ("I can't.", None, "No way.")


def test_content_in_parts_is_one_text() -> None:
    parts = [{"type": "text", "text": "Fou", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "nd."}]
    assert turn({"role": "assistant", "content": parts}).content == "Found."


def test_older_function_calls_are_read_and_written_as_such() -> None:
    older = {
        "functions": [FIND],
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": "{}"}},
            {"role": "function", "name": "find", "content": "here"},
            SAID,
        ],
    }
    trajectory = converted(older)
    assert [tool.name for tool in trajectory.tools] == ["find"]
    assert trajectory.messages[1:3] == (
        AssistantMessage(tool_calls=(ToolCall("call_1", "find", "{}"),), extra=trajectory.messages[1].extra),
        ToolMessage("call_1", "here", trajectory.messages[2].extra),
    )


def test_missing_ids_are_made_up_and_not_written() -> None:
    one, other = ({"function": {"name": name, "arguments": {}}} for name in ("find", "keep"))
    answers = ({"role": "tool", "name": "keep", "content": "2"}, {"role": "tool", "content": "1"})
    trajectory = converted(record(calling(one, other), *answers, calling(call(call_id="call_1"))))
    made = [message.tool_calls for message in trajectory.messages if isinstance(message, AssistantMessage)]
    assert [[call.id for call in calls] for calls in made] == [["call_2", "call_3"], ["call_1"]]
    observations = [message for message in trajectory.messages if isinstance(message, ToolMessage)]
    assert [(one.tool_call_id, one.content) for one in observations] == [("call_2", "1"), ("call_3", "2")]


def test_observations_follow_in_the_order_of_the_calls() -> None:
    calls = (call(call_id="a"), call(call_id="b"), call(call_id="c"))
    answers = (observed("3", "c"), observed("1", "a"), observed("2", "b"))
    messages = converted(record(calling(*calls), *answers, SAID)).messages
    assert [message.content for message in messages[2:5]] == ["1", "2", "3"]  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [{"n": 1}, [1, 2], 3, True, None, [{"type": "text", "text": "x"}]])
def test_an_observation_may_be_any_json(content: Any) -> None:
    message = converted(record(calling(), observed(content))).messages[2]
    expected = {"None": "", "[{'type': 'text', 'text': 'x'}]": "x"}.get(str(content), json.dumps(content))
    assert message.content == expected  # type: ignore[union-attr]


def test_a_developer_is_a_system_and_names_and_unknown_fields_are_kept() -> None:
    developer = {"role": "developer", "content": "Be brief.", "name": "boss"}
    usage = {"audio": None, "annotations": [], "refusal": None, "function_call": None, "weight": 0}
    trajectory = converted(record(developer, calling(**usage), observed(name="find"), SAID | usage, model="m"))
    assert isinstance(trajectory.messages[1], SystemMessage)
    assert trajectory.extra == {"openai": {"fields": {"model": "m"}}}


@pytest.mark.parametrize("more", [{}, {"id": "mine"}, {"id": 7}, {"id": None}, {"source": "log"}])
def test_a_stored_record_is_written_again_with_the_id_it_had_or_none(tmp_path: Path, more: dict[str, Any]) -> None:
    given = [{"messages": [ASKED, SAID], "tools": [WRAPPED]} | more]
    (tmp_path / "in.json").write_text(json.dumps(given))
    convert_file(tmp_path / "in.json", "openai", tmp_path / "stored.jsonl")
    convert_file(tmp_path / "stored.jsonl", "openai", tmp_path / "out.json", to_format="openai")
    assert json.loads((tmp_path / "out.json").read_text()) == given
    stored = json.loads((tmp_path / "stored.jsonl").read_text())
    assert stored.get("id") == (None if "id" not in more else "mine" if more["id"] == "mine" else "in-0")


def test_a_records_own_id_is_the_trajectorys() -> None:
    assert converted(record(SAID, id="chat-7")).id == "chat-7"
    assert converted(record(SAID)).id is None


# ---- tools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [WRAPPED, FIND, {"function": FIND}, WRAPPED | {"strict": True}, {"name": "find"}])
def test_a_tool_is_written_as_it_came(tool: dict[str, Any]) -> None:
    assert [tool.name for tool in converted(record(SAID, tools=[tool])).tools] == ["find"]


@pytest.mark.parametrize("tools", [[], None, json.dumps([WRAPPED]), json.dumps([FIND], indent=1), " [] "])
def test_a_list_of_tools_is_written_as_it_came(tools: Any) -> None:
    converted(record(SAID, tools=tools))


def test_a_schema_in_a_string_is_kept_verbatim() -> None:
    text = '[{"function": {"name":"find",  "parameters":{"type":"object","maximum":1.0}}, "type": "function"}]'
    (tool,) = converted(record(SAID, tools=text)).tools
    assert tool.schema == '{"name":"find",  "parameters":{"type":"object","maximum":1.0}}'


# ---- this program's own records -----------------------------------------------------------------------------------


def test_a_record_of_this_program_is_read_as_such() -> None:
    own = Trajectory(
        (Tool(json.dumps(FIND), {"alpha-umi": {"Name": "find"}}),),
        (
            UserMessage("Find it."),
            AssistantMessage("Hm.", (ToolCall("c", "", "find!", malformed=True),), extra={"alpha-umi": {"marker": ""}}),
            ToolMessage("c", "no"),
        ),
        "one",
        {"alpha-umi": {"source": "G1"}},
    )
    value = json.loads(own.to_json())
    assert FORMAT.looks_like(value)
    assert FORMAT.convert_record(value, "r") == own
    assert "extra" not in json.dumps(written(own)) and "malformed" not in json.dumps(written(own))


# ---- rejected records ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"tools": []}, "messages: Field required"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        (record({"role": "robot", "content": ""}), r"messages\[\]\.role: Input should be"),
        (record({"role": "user", "content": None}), "a system or user message has no content"),
        (record({"role": "user", "content": [{"type": "image_url"}]}), "neither a text nor a list of text parts"),
        (record(calling(call(), call())), "two calls with one id"),
        (record(calling(), observed(call_id="c2")), "an observation answers no open call"),
        (record(calling(), observed(), observed()), "an observation answers no open call"),
        (record(ASKED | {"tool_calls": [call()]}), "a message that is not the assistant's makes a call"),
        (record(calling(refusal="No.")), "both calls and a refusal"),
        (record(SAID | {"refusal": "No."}), "both content and a refusal"),
        (record(calling(function_call={"name": "find"})), "both tool_calls and a function_call"),
        (record(calling({"id": "c"})), "a call has no function name"),
        (record(SAID, functions=[FIND]), "both tools and functions"),
        (record(SAID, tools=3), "tools: neither a list nor a string"),
        (record(SAID, tools="{}"), "tools: a string that holds no list"),
        (record(SAID, tools="["), "tools: a string that is not JSON"),
        (record(SAID, tools=[3]), "a tool is no function object"),
        (record(SAID, tools=[{"name": ""}]), "a tool is no function object"),
        (record(SAID, tools=[{"name": "x", "parameters": []}]), "a tool is no function object"),
        (record(SAID, tools=[{"name": "x", "parameters": {"type": "dict"}}]), "parameters are no JSON Schema"),
        (record(SAID, tools=[WRAPPED | {"type": "web_search"}]), "a tool is not of type function"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_a_call_that_only_the_mark_makes_malformed_is_not_written() -> None:
    odd = Trajectory((), (AssistantMessage(tool_calls=(ToolCall("c", "find", "{}", malformed=True),)),))
    with pytest.raises(RecordError, match="marked malformed"):
        written(odd)


# ---- recognition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"conversations": [{"from": "user", "value": "x"}], "tools": []},
        {"messages": [{"role": "tool_call", "content": "{}"}]},
        {"messages": [ASKED], "tools": "[]"},
        {"messages": [ASKED, SAID]},
        {"prompt": [ASKED], "completion": [SAID]},
        {"messages": [{"role": "user", "content": [{"type": "reasoning", "value": "x"}]}]},
    ],
)
def test_records_of_other_formats_are_not_taken_for_it(other: Any) -> None:
    assert not FORMAT.looks_like(other)
    assert FORMAT.looks_like(record(calling(), observed({"any": "json"})))
    assert FORMAT.looks_like({"messages": [ASKED, calling(), observed()]})


def test_no_public_data_set_is_taken_for_it(real_data: Path) -> None:
    for path in sorted(real_data.glob("*/*.json*")):
        for value in islice(read_records(path), 3):
            assert isinstance(value, BrokenLine) or not FORMAT.looks_like(value), path


# ---- properties ---------------------------------------------------------------------------------------------------

TEXT = st.sampled_from(["", " ", "x", "Hm.\n\n", "ü{}"]) | st.text(max_size=6)
WRITTEN = st.sampled_from(["", "{}", '{"q":  1.0}', "{oops", "[1]"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=3)
THOUGHT = {key: TEXT | st.none() for key in ("reasoning_content", "reasoning", "thinking", "name", "weight")}


@st.composite
def turns(draw: st.DrawFn, number: int) -> list[dict[str, Any]]:
    kind = draw(st.sampled_from(["other", "say", "refuse", "call", "older"]))
    if kind == "other":
        role = draw(st.sampled_from(["user", "system", "developer"]))
        return [draw(st.fixed_dictionaries({"role": st.just(role), "content": TEXT | PARTS}, optional={"name": TEXT}))]
    message: dict[str, Any] = draw(st.fixed_dictionaries({"role": st.just("assistant")}, optional=THOUGHT))
    if kind == "refuse":
        return [message | {"refusal": draw(TEXT), "content": draw(st.sampled_from([None, "", " "]))}]
    if draw(st.booleans()):
        message["content"] = draw(TEXT | PARTS | st.none())
    if kind == "say":
        return [message]
    names = st.sampled_from(["", "a", "b"])
    function = st.fixed_dictionaries({"name": names}, optional={"arguments": WRITTEN | VALUES})
    if kind == "older":
        return [message | {"function_call": draw(function)}, {"role": "function", "name": "a", "content": draw(TEXT)}]
    with_ids = draw(st.booleans())
    calls, answers = [], []
    for place in range(draw(st.integers(1, 3))):
        name = {"id": f"{number}-{place}"} if with_ids else {}
        calls.append(name | draw(st.fixed_dictionaries({"function": function}, optional={"type": st.just("function")})))
        answer = draw(st.fixed_dictionaries({"role": st.just("tool")}, optional={"content": TEXT | VALUES | PARTS}))
        answers.append(answer | ({"tool_call_id": name["id"]} if with_ids else {}))
    answers = draw(st.permutations(answers))[: draw(st.integers(0, len(answers)))]
    return [message | {"tool_calls": calls}, *answers]


@st.composite
def spelled_records(draw: st.DrawFn) -> dict[str, Any]:
    messages = [one for number in range(draw(st.integers(1, 4))) for one in draw(turns(number))]
    tools = st.sampled_from([[WRAPPED], [FIND], [], None, json.dumps([WRAPPED])])
    return {"messages": messages} | draw(st.fixed_dictionaries({}, optional={"tools": tools, "id": TEXT, "n": VALUES}))


@given(spelled_records())
def test_any_spelling_is_written_again_as_it_came(value: dict[str, Any]) -> None:
    converted(value)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    messages: list[Message] = []
    for number in range(draw(st.integers(0, 5))):
        rationale = draw(st.none() | TEXT)
        kind = draw(st.sampled_from(["user", "system", "think", "say", "refuse", "call"]))
        if kind == "user":
            messages.append(UserMessage(draw(TEXT)))
        elif kind == "system":
            messages.append(SystemMessage(draw(TEXT)))
        elif kind == "call":
            arguments = draw(st.lists(st.sampled_from(["{}", '{"q":1}', "{oops"]), min_size=1, max_size=3))
            calls = tuple(
                ToolCall(f"{number}-{place}", "a", one, malformed=one == "{oops") for place, one in enumerate(arguments)
            )
            messages.append(AssistantMessage(rationale, calls))
            messages += [ToolMessage(call.id, draw(TEXT)) for call in calls]
        else:
            content, refusal = (draw(TEXT) if kind == wanted else None for wanted in ("say", "refuse"))
            messages.append(AssistantMessage(rationale, content=content, refusal=refusal))
    return Trajectory((Tool(json.dumps(FIND)),), tuple(messages or [UserMessage("x")]))


@given(trajectories())
def test_any_trajectory_is_read_again_as_it_was(trajectory: Trajectory) -> None:
    assert FORMAT.convert_record(written(trajectory), "r") == trajectory


KEYS = st.sampled_from([
    "messages", "tools", "functions", "role", "content", "tool_calls", "function", "name", "arguments", "type", "text",
    "extra", "id", "tool_call_id", "function_call", "refusal", "reasoning", "parameters", "malformed",
])  # fmt: skip
ROLES = st.sampled_from(["user", "assistant", "tool", "text", "function"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES | JUNK}, optional={"content": JUNK, "tool_calls": JUNK}), max_size=4
)


@given(JUNK | st.fixed_dictionaries({"messages": MESSAGES | JUNK}, optional={"tools": JUNK, "extra": JUNK}))
def test_any_json_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        own = "extra" in anything or "extra" in json.dumps(anything) or "malformed" in json.dumps(anything)
        assert own or written(trajectory) == anything
