"""ToolRL's rows: a system text with tools, a history in tags, and one step; as JSON or as Parquet."""

import json
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import convert, convert_file, recognise
from alpha_umi.data.records import RecordError, Rejected, read_records
from alpha_umi.data.toolrl import FORMAT
from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    schema_problem,
)

SEARCH = ("Search Managers", "Finds\nmanagers.", {"name": {"description": "Who", "type": "string", "default": ""}})
RULES = "**Steps for Each Turn**\n1. **Think:** Recall."
CALL = '<tool_call>\n{"name": "Search Managers", "parameters": {"name":"Ann"}}\n</tool_call>'


def row(history: str, output: str, *tools: tuple[str, str, Any], **more: Any) -> dict[str, Any]:
    listed = "\n".join(
        f"{number}. Name: {name}\nDescription: {description}\nParameters: {json.dumps(parameters)}"
        for number, (name, description, parameters) in enumerate(tools or (SEARCH,), 1)
    )
    head = "You help.\n\n**Available Tools**\nIn your response, you can use the following tools:\n"
    return {
        "instruction": f"{head}{listed}\n\n{RULES}",
        "input": f"**Dialogue Records History**\n{history}",
        "output": output,
    } | more


def prompted(sft: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """The same row for reinforcement learning, as the published Parquet files have it."""
    texts = {key: sft[key] for key in ("instruction", "input", "output")}
    return {
        "data_source": "rlla",
        "prompt": [
            {"content": sft["instruction"], "role": "system"},
            {"content": sft["input"], "role": "user"},
        ],
        "ability": "math",
        "reward_model": {"ground_truth": sft["output"], "style": "rule"},
        "extra_info": {"index": number, "split": "test", **texts},
    }


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def turns(history: str, output: str) -> tuple[Any, ...]:
    return FORMAT.convert_record(row(history, output), "r").messages[1:]


# ---- the real file ------------------------------------------------------------------------------------------------


def test_399_of_400_rows_are_converted(real_data: Path) -> None:
    converted = list(FORMAT.convert(real_data / "toolrl" / "rlla_sft.json"))
    assert Counter(one.reason for one in converted if isinstance(one, Rejected)) == {"two tools have the same name": 1}
    trajectories = [one for one in converted if isinstance(one, Trajectory)]
    last = [trajectory.messages[-1] for trajectory in trajectories]
    steps = [message for message in last if isinstance(message, AssistantMessage)]
    assert Counter(step.decision for step in steps) == {Decision.CALL: 345, Decision.FINISH: 54}
    assert all(step.reasoning_content for step in steps)
    assert sum(any(isinstance(m, ToolMessage) for m in t.messages) for t in trajectories) == 37
    calls = [call for step in steps for call in step.tool_calls]
    assert len(calls) == 575 and not any(call.malformed for call in calls)
    assert not any(schema_problem(tool.schema) for trajectory in trajectories for tool in trajectory.tools)


def test_all_of_the_published_parquet_file_is_converted(real_data: Path) -> None:
    pytest.importorskip("pyarrow")
    converted = list(convert(real_data / "toolrl" / "rlla_4k_test.parquet", "auto"))
    trajectories = [one for one in converted if isinstance(one, Trajectory)]
    assert len(trajectories) == len(converted) == 80
    last = [trajectory.messages[-1] for trajectory in trajectories]
    assert Counter(m.decision for m in last if isinstance(m, AssistantMessage)) == {
        Decision.CALL: 71, Decision.FINISH: 9,
    }  # fmt: skip
    assert trajectories[5].extra["toolrl"]["extra_info"] == {"index": 5, "split": "test"}


# ---- rows for reinforcement learning, and Parquet -----------------------------------------------------------------


def test_a_row_for_reinforcement_learning_is_the_same_trajectory() -> None:
    sft = row("<user> Who is Ann? </user>", f"<think> I look. </think>\n{CALL}")
    one, other = FORMAT.convert_record(sft, "r"), FORMAT.convert_record(prompted(sft, 7), "r")
    assert (other.tools, other.messages) == (one.tools, one.messages)
    assert other.extra == {"toolrl": {
        "rules": RULES, "data_source": "rlla", "ability": "math", "reward_model": {"style": "rule"},
        "extra_info": {"index": 7, "split": "test"},
    }}  # fmt: skip
    assert FORMAT.looks_like(prompted(sft)) and not FORMAT.looks_like({"prompt": [{"role": "user", "content": "x"}]})


def test_what_its_extra_info_says_otherwise_is_kept() -> None:
    record = prompted(row("<user> x </user>", "<think> y </think>"))
    record["extra_info"]["output"] = "another"
    assert FORMAT.convert_record(record, "r").extra["toolrl"]["extra_info"]["output"] == "another"


def test_a_parquet_file_is_recognised_streamed_and_converted(tmp_path: Path) -> None:
    sft = row("<user> x </user>", "<think> y </think>\n<response> z </response>")
    broken = prompted(row("Hello.", ""))
    path = write_parquet(tmp_path / "rows.parquet", [*(prompted(sft, n) for n in range(70)), broken])
    assert recognise(path) == "toolrl"
    summary = convert_file(path, "auto", tmp_path / "out.jsonl")
    assert (summary.read, summary.converted) == (71, 70)
    assert dict(summary.rejected) == {"text outside the blocks, or a block that isn't closed": 1}
    first = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["id"] == "rows-0"


def test_a_folder_of_parquet_files_is_read_in_order(tmp_path: Path) -> None:
    for name, text in (("b.parquet", "2"), ("a.parquet", "1")):
        write_parquet(tmp_path / name, [prompted(row(f"<user> {text} </user>", "<think> y </think>"))])
    found = [one.messages[1] for one in convert(tmp_path, "auto") if isinstance(one, Trajectory)]
    assert found == [UserMessage("1"), UserMessage("2")]


def test_values_that_json_has_not_become_text(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [{"day": date(2024, 2, 29), "raw": b"a\xff", "n": [1, None]}])
    assert list(read_records(path)) == [{"day": "2024-02-29", "raw": "a\ufffd", "n": [1, None]}]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"x\.parquet: not a Parquet file that can be read"):
        list(read_records(tmp_path / "x.parquet"))
    with pytest.raises(DataError, match="no such file"):
        list(read_records(tmp_path / "y.parquet"))


def test_without_pyarrow_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'alpha-umi\[data\]'"):
        list(read_records(tmp_path / "x.parquet"))


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_step_that_calls_ends_the_trajectory() -> None:
    trajectory = FORMAT.convert_record(row("<user> Who is Ann? </user>", f"<think> I look. </think>\n{CALL}"), "r")
    assert trajectory.messages == (
        SystemMessage("You help."),
        UserMessage("Who is Ann?"),
        AssistantMessage("I look.", (ToolCall("call_1", "Search_Managers", '{"name":"Ann"}'),)),
    )
    assert trajectory.extra == {"toolrl": {"rules": RULES}}
    assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_the_history_comes_before_the_step() -> None:
    history = (
        f"<user> Ann? </user>\n\n<think> Go. </think>\n{CALL}\n<obs> [1] </obs>\n\n"
        "<think> Say. </think>\n<response> A coach. </response>\n\n<user> And Bob? </user>"
    )
    assert turns(history, "<think> Hm, <tool_call> is no use. </think>\n<response> No idea. </response>") == (
        UserMessage("Ann?"),
        AssistantMessage("Go.", (ToolCall("call_1", "Search_Managers", '{"name":"Ann"}'),)),
        ToolMessage("call_1", "[1]"),
        AssistantMessage("Say.", content="A coach."),
        UserMessage("And Bob?"),
        AssistantMessage("Hm, <tool_call> is no use.", content="No idea."),
    )


def test_several_calls_share_a_list_of_results() -> None:
    block = '<tool_call>\n{"name": "a", "parameters": {}}\n{oops\n</tool_call>'
    _, turn, one, other = turns(f'<user> x </user>\n{block}\n<obs> [{{"n": 1}}, "ü"] </obs>', "")
    assert turn.tool_calls == (ToolCall("call_1", "a", "{}"), ToolCall("call_2", "", "{oops", malformed=True))
    assert (one, other) == (ToolMessage("call_1", '{"n": 1}'), ToolMessage("call_2", '"ü"'))


def test_a_response_beside_calls_is_part_of_the_rationale() -> None:
    turn = turns("<user> x </user>", f"<think> Hm. </think>\n{CALL}\n<response> One moment. </response>")[-1]
    assert turn.reasoning_content == "Hm.\n\nOne moment." and turn.content is None


# ---- tools --------------------------------------------------------------------------------------------------------


def test_a_tool_gets_a_legal_name_and_keeps_its_own_in_extra() -> None:
    (tool,) = FORMAT.convert_record(row("<user> x </user>", "<think> y </think>"), "r").tools
    assert (tool.name, tool.description) == ("Search_Managers", "Finds\nmanagers.")
    assert tool.parameters == {"type": "object", "properties": {"name": {"type": "string", "description": "Who"}}}
    assert tool.extra == {"toolrl": {"name": "Search Managers", "parameters": SEARCH[2]}}


@pytest.mark.parametrize(
    ("written", "schema"),
    [
        ("string", {"type": "string"}),
        ("int, optional", {"type": "integer"}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("List[str], optional", {"type": "array", "items": {"type": "string"}}),
        ("List[Union[int, float]]", {"type": "array"}),
        ("Tuple[float, float]", {"type": "array"}),
        ("Dict", {"type": "object"}),
        ("List[List[int]]", {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
        (["string", "null"], {"type": ["null", "string"]}),
        (["string", "puzzle"], {}),
        ("Callable[[float], float]", {}),
        (None, {}),
        ([], {}),
    ],
)
def test_a_written_type_becomes_a_json_schema(written: Any, schema: dict[str, Any]) -> None:
    tool = ("f", "", {"x": {"type": written, "default": 3}})
    (converted,) = FORMAT.convert_record(row("<user> x </user>", "<think> y </think>", tool), "r").tools
    assert converted.parameters["properties"] == {"x": schema | {"default": 3}}
    assert schema_problem(converted.schema) is None


def test_a_tool_that_is_listed_twice_is_shown_once() -> None:
    record = row("<user> x </user>", "<think> y </think>", SEARCH, SEARCH)
    assert len(FORMAT.convert_record(record, "r").tools) == 1


# ---- rejected records ---------------------------------------------------------------------------------------------

ASKED = "<user> x </user>\n"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"instruction": "", "input": ""}, "output: Field required"),
        (row(ASKED, "", instruction="You help."), "instruction: not a sentence, a list of tools and rules"),
        (row(ASKED, "", input="x"), "input: no dialogue history"),
        (prompted(row(ASKED, "")) | {"prompt": []}, "prompt: not a system message and a user message"),
        (prompted(row(ASKED, "")) | {"reward_model": {"style": "rule"}}, "reward_model.ground_truth: Field required"),
        (row("Hello.", ""), "text outside the blocks"),
        (row("<user> x", ""), "a block that isn't closed"),
        (row(ASKED + "<obs> x </obs>", ""), "an observation follows no call"),
        (row(ASKED + CALL + ASKED, ""), "a call has no observation"),
        (row(ASKED + CALL, "<think> x </think>"), "a call has no observation"),
        (row(ASKED, "<tool_call>\n</tool_call>"), "a block of calls is empty"),
        (row(ASKED + CALL.replace("}}\n", "}}\nx\n") + "<obs> [1] </obs>", ""), "no list of as many results"),
        (row(ASKED + CALL.replace("}}\n", "}}\nx\n") + "<obs> 1] </obs>", ""), "several calls is not JSON"),
        (row(ASKED, "", ("a", "", {}), ("a", "b", {})), "two tools have the same name"),
        (row(ASKED, "", ("a", "", [])), "a tool's parameters are no object of objects"),
        (row(ASKED, "", instruction=row("", "")["instruction"].replace("{", "[")), "a tool's parameters are not JSON"),
        (row(ASKED, "", instruction=row("", "")["instruction"].replace("1. Name", "Name")), "a tool is not a block"),
    ],
)
def test_a_row_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_rows_of_other_instruction_data_are_not_taken_for_it() -> None:
    assert FORMAT.looks_like(row(ASKED, "<think> x </think>"))
    assert not FORMAT.looks_like({"instruction": "Sum up.", "input": "A text.", "output": "<think> x </think>"})


PIECES = ["<user> x </user>", CALL, "<obs> [1] </obs>", "<think> y </think>", "<response> z </response>", "<obs>", "w"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("\n".join)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", "default"]), inner),
    max_leaves=6,
)
WORD = st.text(max_size=4)
TOOL = st.tuples(WORD, WORD, st.dictionaries(WORD, JUNK, max_size=2) | JUNK)


ROW = st.builds(row, TEXT, TEXT, TOOL) | st.builds(row, TEXT, TEXT)
SPOILT = st.builds(lambda one, key, junk: one | {key: junk}, ROW.map(prompted),
                   st.sampled_from(["prompt", "reward_model", "extra_info"]), JUNK)  # fmt: skip


@given(JUNK | ROW | ROW.map(prompted) | SPOILT)
def test_any_row_is_converted_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert Trajectory.from_json(trajectory.to_json()) == trajectory
