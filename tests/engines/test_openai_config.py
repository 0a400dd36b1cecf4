"""Engine files, and whatever a server may say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.engines.openai import open_openai
from alpha_umi.engines.openai_config import OpenAIRun, load_openai_run
from alpha_umi.engines.openai_roles import role_text
from alpha_umi.engines.openai_wire import Names, read_turn, readable, wire_messages
from alpha_umi.errors import UserError
from alpha_umi.trajectory import AssistantMessage, Decision, ToolCall, ToolMessage, json_text
from alpha_umi.transcript import ROLES, parse_calls, parse_planner, parse_single, single_text
from tests.agent.conftest import Shelf

HERE = "base_url: http://127.0.0.1:8000/v1, model: m"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("content", "tool_calls", "refusal", "reasoning", "reasoning_content", "function_call", "function", "name",
          "arguments", "id", "type", "text")  # fmt: skip
REPLY = st.recursive(
    JSON, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner) | st.lists(inner, max_size=3), max_leaves=12
)
TEXT = st.text(alphabet=st.sampled_from('Call: Answer: Give up: \n{}"ab'), max_size=40)


def load(folder: Path, text: str) -> OpenAIRun:
    (folder / "engine.yaml").write_text(text)
    return load_openai_run(folder / "engine.yaml")


def test_a_file_names_one_agent_or_three_roles(tmp_path: Path):
    agent = load(tmp_path, f"agent: {{{HERE}}}")
    assert list(agent.endpoints) == ["assistant"] and agent.prompted
    shared = f"planner: &one {{{HERE}}}\ncaller: {{<<: *one, model: c}}\nsummarizer: {{<<: *one, api: chat}}\nrun: r\n"
    roles = load(tmp_path, shared)
    assert [roles.api(endpoint) for endpoint in roles.endpoints.values()] == ["completions", "completions", "chat"]
    assert [endpoint.model for endpoint in roles.endpoints.values()] == ["m", "c", "m"]
    assert not load(tmp_path, shared.replace(", api: chat", "")).prompted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "it is a mapping"),
        ("a: [", r"is not YAML \(line 1\)"),
        ("{}", "give either 'agent', or all of"),
        (f"planner: {{{HERE}}}", "or all of 'planner', 'caller' and 'summarizer'"),
        (f"agent: {{{HERE}}}\nplanner: {{{HERE}}}", "give either 'agent'"),
        (f"agent: {{{HERE}, api: completions}}", "give 'run'"),
        (f"agent: {{{HERE}, api_key: s3cret}}", "unknown key 'agent.api_key'; did you mean 'api_key_env'"),
        (f"agents: {{{HERE}}}", "unknown key 'agents'; did you mean 'agent'"),
        (f"agent: {{{HERE}, shots: {{path: x}}}}", "agent.shots.file: Field required; unknown key 'agent.shots.path'"),
        (f"agent: {{{HERE}, api_key_env: sk-s3cret}}", "name the environment variable"),
        (f"agent: {{{HERE}, timeout: 0}}", "agent.timeout: Input should be greater than 0"),
        (f"agent: {{{HERE}, extra_body: {{guided_json: {{}}}}}}", "vLLM ignores guided_json silently"),
        (f"agent: {{{HERE}, structured_outputs: vllm}}", "agent: structured_outputs is not for api: chat"),
        (f"agent: {{{HERE}, system: x}}\nrun: r", "agent: system is not for api: completions"),
        ("agent: {base_url: 'http://u:s3cret@h/v1', model: m}", "agent.base_url: write it like"),
        ("agent: {base_url: 'http://h/v1?key=s3cret', model: m}", "agent.base_url: write it like"),
        ("agent: {base_url: '127.0.0.1:8000', model: m}", "agent.base_url: write it like"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line_without_its_values(tmp_path: Path, text: str, said: str):
    with pytest.raises(UserError, match=said) as caught:
        load(tmp_path, text)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_key_or_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="No such file"):
        load_openai_run(tmp_path / "none.yaml")
    monkeypatch.delenv("MY_KEY", raising=False)
    keyed = load(tmp_path, f"agent: {{{HERE}, api_key_env: MY_KEY}}")
    with pytest.raises(UserError, match="MY_KEY, which the engine file names, is not set"), open_openai(keyed):
        pass
    monkeypatch.setitem(sys.modules, "openai", None)
    bare = load(tmp_path, f"agent: {{{HERE}}}")
    with pytest.raises(UserError, match=r"pip install 'alpha-umi\[serve\]'"), open_openai(bare):
        pass


# ---- whatever a server says


@given(message=REPLY, finish=st.sampled_from(["stop", "length", "content_filter", None]))
def test_any_reply_is_a_turn_whose_text_reads_back_as_the_same_decision(message: Any, finish: str | None):
    turn = read_turn({"message": message, "finish_reason": finish}, Names(Shelf.tools))
    assert parse_single(single_text(readable(turn))).decision == turn.decision


@given(
    thought=TEXT,
    calls=st.lists(st.tuples(st.text(max_size=8), st.dictionaries(TEXT, JSON, max_size=2)), min_size=1, max_size=3),
)
def test_calls_read_back_as_they_were_written(thought: str, calls: list[tuple[str, dict[str, Any]]]):
    written = [(name, json_text(arguments)) for name, arguments in calls]
    tool_calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in written]
    turn = read_turn({"message": {"content": thought, "tool_calls": tool_calls}}, Names(()))
    back = parse_single(single_text(readable(turn))).tool_calls
    assert [(call.name, call.arguments) for call in back] == written


@given(role=st.sampled_from(ROLES), content=st.text() | TEXT)
def test_any_text_of_a_role_is_read(role: Any, content: str):
    text = role_text(role, content)
    if role == "caller":
        assert parse_calls(text)
    if role == "planner" and "next:" not in content.lower():
        assert parse_planner(text)[1] is None


@pytest.mark.parametrize(
    ("content", "decision"),
    [
        ("So.\nNext: Caller", Decision.CALL), ("So. Next: summarizer.", Decision.FINISH),
        ("**Next: Give up**", Decision.GIVE_UP), ("So.\n> Next: Caller\nNext: Give up", Decision.CALL),
        ("What is next: a call", None),
    ],
)  # fmt: skip
def test_a_planners_decision_is_found_however_it_is_decorated(content: str, decision: Decision | None):
    text = role_text("planner", content)
    assert parse_planner(text)[1] is decision
    assert "**" not in text


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ('{"name": "f", "arguments": {}}', 1), ('```json\n{"name": "f", "arguments": {}}\n```', 1),
        ('[{"name": "f", "arguments": {}}, {"name": "g"}]', 2), ('{"name":"f","arguments":{}}\n{"name":"g"}', 2),
        ("f()", 0), ('{"name": "f", "arguments": 3}', 0), ("", 0),
    ],
)  # fmt: skip
def test_a_callers_calls_are_found_in_what_a_chat_model_wraps_them_in(content: str, count: int):
    calls = parse_calls(role_text("caller", content))
    assert [call.name for call in calls if not call.malformed] == ["f", "g"][:count]


@given(names=st.lists(st.text(min_size=1, max_size=80), min_size=1, max_size=4), arguments=st.text(max_size=30))
def test_whatever_was_called_is_sent_as_every_server_takes_it(names: list[str], arguments: str):
    calls = tuple(ToolCall(f"id {n}", name, arguments, True) for n, name in enumerate(names))
    history = [AssistantMessage("So.", calls), *(ToolMessage(call.id, "x") for call in calls)]
    known = Names(Shelf.tools)
    turn, *replies = wire_messages(history, known, "content")
    assert [call["id"] for call in turn["tool_calls"]] == [one["tool_call_id"] for one in replies]
    for name, call in zip(names, turn["tool_calls"], strict=True):
        sent = call["function"]["name"]
        assert known.own(sent) == name and 0 < len(sent) <= 64 and sent.isascii()
