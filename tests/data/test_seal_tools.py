"""Seal-Tools: gold calls in one turn, tool lists filled up the same way every time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.format import Options
from alpha_umi.data.records import RecordError
from alpha_umi.data.seal_tools import DISTRACTORS, FORMAT, Catalogue
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, Trajectory, UserMessage, schema_problem


def document(name: str, field: str, **more: Any) -> dict[str, Any]:
    return {
        "api_name": name,
        "api_description": f"About {name}.",
        "field": field,
        "parameters": {},
        "required": [],
    } | more


DOCUMENTS = [
    document(
        "getScore",
        "Sports/Tennis",
        parameters={"player": {"type": "str", "description": "Who."}, "sets": {"type": "int", "description": ""}},
        required=["player"],
        responses={"score": {"type": "str", "description": "The score."}},
    ),
    document("get Weather", "Weather"),
    *(document(f"getSport{number}", f"Sports/{number}") for number in range(9)),
    document("getFish", "Biology/Fish"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seal")
    (path / "tool.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    (path / "field.jsonl").write_text('{"Sports": ["Tennis"]}')
    (path / "dev.jsonl").write_text(json.dumps(record()))
    return path


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Catalogue:
    return Catalogue.read(folder / "tool.jsonl")


def record(**more: Any) -> dict[str, Any]:
    calling = [
        {"api": "getScore", "parameters": {"player": "Graf"}, "responses": ["API_call_0"]},
        {"api": "get Weather", "parameters": {"where": "API_call_0"}, "responses": ["API_call_1"]},
    ]
    return {"id": "dev-1", "query": "Who won?", "calling": calling} | more


def test_every_record_of_the_real_file_is_converted(real_data: Path) -> None:
    found = list(FORMAT.convert(real_data / "seal-tools"))
    assert not any(isinstance(one, Rejected) for one in found)
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    turns = [m for t in trajectories for m in t.messages if isinstance(m, AssistantMessage)]
    assert (len(trajectories), sum(len(turn.tool_calls) for turn in turns)) == (700, 1804)
    for trajectory, turn in zip(trajectories, turns, strict=True):
        names = {tool.name for tool in trajectory.tools}
        assert {call.name for call in turn.tool_calls} <= names
    assert all(len(t.tools) >= 5 for t in trajectories)
    assert not any(map(schema_problem, {tool.schema for t in trajectories[::4] for tool in t.tools}))


def test_all_calls_are_one_turn_and_references_stay(catalogue: Catalogue) -> None:
    asked, called = FORMAT.convert_record(record(), "r", catalogue).messages
    assert asked == UserMessage("Who won?")
    assert isinstance(called, AssistantMessage)
    assert [(c.name, c.parsed()) for c in called.tool_calls] == [
        ("getScore", {"player": "Graf"}),
        ("get_Weather", {"where": "API_call_0"}),
    ]
    assert called.extra == {"seal-tools": {"responses": [["API_call_0"], ["API_call_1"]]}}


def test_the_list_has_the_used_tools_and_others_of_their_fields(catalogue: Catalogue) -> None:
    tools = FORMAT.convert_record(record(), "r", catalogue).tools
    names = {tool.name for tool in tools}
    assert {"getScore", "get_Weather"} <= names and len(names) == 2 + DISTRACTORS
    assert "getFish" not in names
    (score,) = (tool for tool in tools if tool.name == "getScore")
    assert score.parameters == {
        "type": "object",
        "properties": {"player": {"type": "string", "description": "Who."}, "sets": {"type": "integer"}},
        "required": ["player"],
    }
    assert "score" in score.extra["seal-tools"]["responses"]


def test_the_same_record_gets_the_same_list_everywhere(catalogue: Catalogue) -> None:
    first, second = (FORMAT.convert_record(record(), name, catalogue) for name in ("a-0", "b-7"))
    assert first.tools == second.tools
    assert FORMAT.convert_record(record(query="Who lost?"), "a-0", catalogue).tools != first.tools


def test_the_tools_are_beside_the_file_or_named(folder: Path, tmp_path: Path) -> None:
    assert [t.id for t in FORMAT.convert(folder) if isinstance(t, Trajectory)] == ["dev-0"]
    alone = tmp_path / "dev.jsonl"
    alone.write_text(json.dumps(record()))
    assert [t.id for t in FORMAT.convert(alone, Options(folder / "tool.jsonl")) if isinstance(t, Trajectory)] == [
        "dev-0"
    ]
    with pytest.raises(DataError, match=r"its tools are missing: expected tool\.jsonl"):
        list(FORMAT.convert(alone))
    with pytest.raises(DataError, match=r"tool document 0: api_name: Field required"):
        list(FORMAT.convert(alone, Options(alone)))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        (record(calling=[]), "calling: List should have at least 1 item"),
        (record(calling=[{"api": "getNothing"}]), "a tool that the file of tools doesn't have"),
        (record(calling=[{"api": "getScore", "parameters": "x"}]), r"calling\[\]\.parameters: Input should be"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(catalogue: Catalogue, bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r", catalogue)


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like(record())
    assert not FORMAT.looks_like(DOCUMENTS[0])
    assert not FORMAT.looks_like({"query": "x", "calling": []})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["api", "parameters", "responses", "calling"]), inner, max_size=3)
    ),
)
CALL = st.fixed_dictionaries(
    {"api": st.sampled_from(["getScore", "getFish", "getNothing"])}, optional={"parameters": JSON, "responses": JSON}
)


@given(JSON | st.fixed_dictionaries({"id": st.just("x"), "query": st.text(), "calling": st.lists(CALL) | JSON}))
def test_any_record_is_converted_whole_or_rejected(catalogue: Catalogue, anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        turn = FORMAT.convert_record(anything, "r", catalogue).messages[1]
    except RecordError as error:
        assert str(error)
    else:
        assert isinstance(turn, AssistantMessage)
        assert [c.name for c in turn.tool_calls] == [call["api"] for call in anything["calling"]]
