"""API-Bank: dialogues with executed calls, and next-call rows whose dialogue stands in one text."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.api_bank import ASKED, FORMAT, Documents
from alpha_umi.data.format import Options
from alpha_umi.data.records import RecordError
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, SystemMessage, ToolMessage, Trajectory, UserMessage, schema_problem

SYSTEM = """You are helpful.

**Available Tools**
In your response, you can use the following tools:
1. Name: BookHotel
Description: Books a room.
In a hotel.
Parameters: {'hotel': {'type': 'str', 'description': "The hotel's name."}, 'guests': {'type': 'list(str)'}}
2. Name: GetToday
Description: The date.
Parameters: {}

**Steps for Each Turn**
1. **Think:** Recall.
"""
HISTORY = f"""**Dialogue Records History**
<user>What day is it?</user>
<response>Let me look.</response>
<tool_call>
{{"name": "GetToday", "parameters": {{}}}}
</tool_call>
<obs> 2023-03-20 </obs>
<response>It is Monday.</response>

<user>Book the Ritz.</user>
<response>Alright.</response>

<user> {ASKED}</user>
"""
ANSWER = {"name": "BookHotel", "parameters": {"hotel": "Ritz"}}
ROW = {"system": SYSTEM, "user": HISTORY, "answer": [ANSWER], "other": {"file": "x", "id": 1}}


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "text": text}


def called(
    name: str, output: Any = "success", ran: dict[str, Any] | None = None, **given_strings: str
) -> dict[str, Any]:
    result = {"input": given_strings if ran is None else ran, "output": output, "exception": None}
    return {"role": "API", "api_name": name, "param_dict": given_strings, "result": result}


def read(*turns: dict[str, Any], documents: Documents | None = None, path: str = "") -> Trajectory:
    return FORMAT.convert_record({"path": path, "turns": list(turns)}, "r", documents)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    folder = tmp_path_factory.mktemp("bank")
    (folder / "level-1-api_processed.json").write_text(json.dumps([ROW]))
    return Documents.beside(folder / "dialogues.jsonl", Options())


# ---- the real files -----------------------------------------------------------------------------------------------


def trajectories(path: Path) -> tuple[list[Trajectory], Counter[str]]:
    found = list(FORMAT.convert(path))
    good = [one for one in found if isinstance(one, Trajectory)]
    assert not any(schema_problem(tool.schema) for trajectory in good for tool in trajectory.tools)
    return good, Counter(one.reason for one in found if isinstance(one, Rejected))


def test_all_dialogues_but_the_empty_one_are_converted(real_data: Path) -> None:
    good, rejected = trajectories(real_data / "api-bank" / "lv1_lv2_dialogues.jsonl")
    assert len(good) == 263
    assert rejected == {"turns: List should have at least 1 item after validation, not 0": 1}
    messages = [message for trajectory in good for message in trajectory.messages]
    calls = [call for m in messages if isinstance(m, AssistantMessage) for call in m.tool_calls]
    assert sum(isinstance(m, ToolMessage) for m in messages) == 508
    assert len(calls) == 508 + 9  # nine calls stand in a text and have no observation
    for trajectory in good:
        names = {tool.name for tool in trajectory.tools}
        assert {c.name for m in trajectory.messages if isinstance(m, AssistantMessage) for c in m.tool_calls} <= names


@pytest.mark.parametrize(("name", "rows"), [("level-1", 399), ("level-2", 67)])
def test_every_next_call_row_ends_in_its_one_call(real_data: Path, name: str, rows: int) -> None:
    good, rejected = trajectories(real_data / "api-bank" / f"{name}-api_processed.json")
    assert (len(good), rejected) == (rows, {})
    last = [trajectory.messages[-1] for trajectory in good]
    assert all(isinstance(m, AssistantMessage) and len(m.tool_calls) == 1 for m in last)
    assert not any(ASKED in (m.content or "") for trajectory in good for m in trajectory.messages)


def test_of_the_folder_only_dialogues_and_rows_are_read(real_data: Path) -> None:
    names = [path.name for path in FORMAT.files(real_data / "api-bank")]
    assert names == ["level-1-api_processed.json", "level-2-api_processed.json", "lv1_lv2_dialogues.jsonl"]


# ---- dialogues ----------------------------------------------------------------------------------------------------


def test_an_announcement_is_the_rationale_of_the_call_after_it() -> None:
    messages = read(said("User", "Book."), said("AI", "Sure."), called("BookHotel", hotel="Ritz"), said("AI", "Done."))
    _, call, reply, answer = messages.messages
    assert isinstance(call, AssistantMessage) and isinstance(answer, AssistantMessage)
    assert (call.reasoning_content, call.tool_calls[0].arguments) == ("Sure.", '{"hotel": "Ritz"}')
    assert reply == ToolMessage("call_1", "success")
    assert (answer.reasoning_content, answer.content) == (None, "Done.")


def test_arguments_are_those_the_api_ran_with() -> None:
    call, reply = read(called("Add", output={"n": 1.0}, ran={"n": 1}, n="1")).messages
    assert isinstance(call, AssistantMessage) and isinstance(reply, ToolMessage)
    assert call.tool_calls[0].arguments == '{"n": 1}'
    assert (reply.content, reply.extra) == ('{"n": 1.0}', {"api-bank": {"param_dict": {"n": "1"}}})


def test_an_exception_is_part_of_the_observation() -> None:
    turn = called("Add", output=None)
    turn["result"]["exception"] = "ValueError"
    reply = read(turn).messages[1]
    assert isinstance(reply, ToolMessage) and reply.content == '{"output": null, "exception": "ValueError"}'


def test_a_call_in_a_text_is_a_call_without_an_observation() -> None:
    text = "Let me look. [GetToday(zone='UTC')] It is [really] Monday."
    call, answer = read(said("AI", text)).messages
    assert isinstance(call, AssistantMessage) and isinstance(answer, AssistantMessage)
    assert (call.reasoning_content, call.tool_calls[0].arguments) == ("Let me look.", '{"zone": "UTC"}')
    assert answer.content == "It is [really] Monday."


def test_words_after_a_call_in_a_text_announce_the_call_after_them() -> None:
    first, second, _ = read(said("AI", "[GetToday()] I book."), called("BookHotel", hotel="Ritz")).messages
    assert isinstance(first, AssistantMessage) and isinstance(second, AssistantMessage)
    assert [call.id for call in (*first.tool_calls, *second.tool_calls)] == ["call_1", "call_2"]
    assert (first.reasoning_content, second.reasoning_content) == (None, "I book.")


def test_the_tools_are_those_called_and_those_in_the_files_name(documents: Documents) -> None:
    trajectory = read(
        called("BookHotel", hotel="Ritz", room="5"), documents=documents, path="a/GetToday-Nothing-level-1-1.jsonl"
    )
    book, today = trajectory.tools
    assert (book.name, book.description) == ("BookHotel", "Books a room.\nIn a hotel.")
    assert book.parameters["properties"] == {
        "hotel": {"type": "string", "description": "The hotel's name."},
        "room": {"type": "string"},
        "guests": {"type": "array", "items": {"type": "string"}},
    }
    assert (today.name, today.parameters["properties"]) == ("GetToday", {})


def test_a_tool_without_a_document_is_inferred() -> None:
    (tool,) = read(called("Add", ran={"n": 1}, n="1")).tools
    assert tool.parameters["properties"] == {"n": {"type": "integer"}}
    assert tool.extra == {"api-bank": {"inferred": True}}


def test_documents_that_cant_be_read_are_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([ROW | {"system": SYSTEM.replace("{}", "{oops}")}]))
    with pytest.raises(DataError, match="the parameters of a tool can't be read"):
        Documents.beside(tmp_path / "dialogues.jsonl", Options(path))


# ---- next-call rows -----------------------------------------------------------------------------------------------


def test_a_row_is_its_dialogue_and_the_call_to_make() -> None:
    trajectory = FORMAT.convert_record(ROW, "r")
    system, asked, look, day, answer, booking, book = trajectory.messages
    assert (system, asked) == (SystemMessage("You are helpful."), UserMessage("What day is it?"))
    assert isinstance(look, AssistantMessage) and isinstance(answer, AssistantMessage)
    assert isinstance(book, AssistantMessage)
    assert (look.reasoning_content, look.tool_calls[0].name) == ("Let me look.", "GetToday")
    assert day == ToolMessage("call_1", "2023-03-20")
    assert (answer.content, booking) == ("It is Monday.", UserMessage("Book the Ritz."))
    assert (book.reasoning_content, book.tool_calls[0].id) == ("Alright.", "call_2")
    assert book.tool_calls[0].parsed() == {"hotel": "Ritz"}
    assert [tool.name for tool in trajectory.tools] == ["BookHotel", "GetToday"]


def test_the_answer_may_be_one_call_without_a_list() -> None:
    assert FORMAT.convert_record(ROW | {"answer": ANSWER}, "r").messages == FORMAT.convert_record(ROW, "r").messages


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"turns": [{"role": "Robot", "text": ""}]}, r"turns\[\]\.said\.role: Input should be"),
        (ROW | {"system": "x"}, "no list of tools between its usual headings"),
        (ROW | {"system": SYSTEM.replace("{}", "3")}, "the parameters of a tool can't be read"),
        (ROW | {"user": "<obs>x</obs>"}, "an <obs> follows no <tool_call>"),
        (ROW | {"answer": []}, "answer: no call"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like(ROW)
    assert FORMAT.looks_like({"turns": [said("User", "x")]})
    assert not FORMAT.looks_like({"system": "x", "user": "y", "answer": []})
    assert not FORMAT.looks_like({"turns": [{"role": "user", "text": "x"}]})


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "text", "result", "name", "parameters"]), inner, max_size=3)
    ),
)
TURNS = st.lists(
    st.sampled_from([said("User", "x"), said("AI", "y"), said("AI", "[F(a=1)] [G()]"), called("F", a="1")]) | JSON,
    max_size=5,
)
TEXTS = st.lists(
    st.sampled_from(["<user>x</user>", "<response>y</response>", "<tool_call>\n{}\n</tool_call>", "<obs>r</obs>", "<"])
).map("".join)


@given(
    JSON
    | st.fixed_dictionaries({"turns": TURNS}, optional={"path": st.text(max_size=9) | JSON})
    | st.fixed_dictionaries({"system": st.just(SYSTEM) | JSON, "user": TEXTS | JSON, "answer": st.just(ANSWER) | JSON})
)
def test_any_record_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        found = FORMAT.convert_record(anything, "r").messages
    except RecordError as error:
        assert str(error)
        return
    replies = sum(isinstance(message, ToolMessage) for message in found)
    if "turns" in anything:
        assert replies == sum(turn["role"] == "API" for turn in anything["turns"])
    else:
        assert replies == anything["user"].count("<obs>r</obs>")
