"""TRAJECT-Bench: executed steps become turns, tool lists are filled up the same way every time."""

import json
import lzma
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import convert
from alpha_umi.data.records import RecordError
from alpha_umi.data.traject_bench import FORMAT, LIST_SIZE, Domain, function_names
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, Decision, ToolMessage, Trajectory

LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def document(name: str, **more: Any) -> dict[str, Any]:
    return {"tool name": name, "tool description": f"About {name}.", "required_parameters": []} | more


DOCUMENTS = [
    document(
        "Shop: Search",
        required_parameters=[{"name": "q", "type": "STRING", "description": "Words", "default": ""}],
        optional_parameters=[
            {"name": "page", "type": "NUMBER", "description": "", "default": 1},
            {"name": "day", "type": "DATE (YYYY-MM-DD)"},
            {"name": "kind", "type": "PUZZLE"},
        ],
    ),
    *(document(f"Shop: Other {number}") for number in range(9)),
    document("Twice: Get", optional_parameters=[{"name": "a", "type": "STRING"}]),
    document("Twice: Get", optional_parameters=[{"name": "b", "type": "BOOLEAN"}]),
]


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    path = tmp_path_factory.mktemp("tools") / "Shop_tool.json"
    path.write_text(json.dumps(DOCUMENTS))
    return Domain.read(path, "Shop")


def step(name: Any = "Shop: Search", output: Any = "found", **more: Any) -> dict[str, Any]:
    return {
        "tool name": name,
        "tool description": "Step.",
        "required parameters": [{"name": "q", "value": "shoes"}],
        "optional parameters": [{"name": "page", "value": 2}],
        "executed_output": output,
    } | more


def record(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"query": "Shoes?", "tool list": list(steps), "final_answer": "Yes.", "sequence_name": "S"} | more


# ---- sequential and parallel --------------------------------------------------------------------------------------


def test_a_sequential_step_is_a_turn_and_its_observation(domain: Domain) -> None:
    first = step(sequence_step={"step_number": 1, "description": "Look for shoes."})
    second = step(adapt_reason="The first page was empty.", output="ERROR: Failed", execution_status="failed")
    final = {"answer": "Yes.", "reason": "Two pages were enough."}
    trajectory = FORMAT.convert_record(record(first, second, final_answer=final), "r", domain)
    assert [m.role for m in trajectory.messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    look, found, again, failed, answer = trajectory.messages[1:]
    assert isinstance(look, AssistantMessage) and isinstance(again, AssistantMessage)
    assert isinstance(answer, AssistantMessage) and isinstance(found, ToolMessage) and isinstance(failed, ToolMessage)
    assert look.reasoning_content == "Look for shoes."
    assert look.tool_calls[0].name == "Shop_Search"
    assert look.tool_calls[0].arguments == '{"q": "shoes", "page": 2}'
    assert again.reasoning_content == "The first page was empty."
    assert (failed.content, failed.extra) == ("ERROR: Failed", {"traject-bench": {"execution_status": "failed"}})
    assert (answer.reasoning_content, answer.content) == ("Two pages were enough.", "Yes.")
    assert trajectory.extra["traject-bench"] == {
        "domain": "Shop",
        "trajectory_type": "sequential",
        "sequence_name": "S",
    }


def test_parallel_steps_are_one_turn_with_their_observations_in_call_order(domain: Domain) -> None:
    steps = [step(output=f"page {number}") for number in range(3)]
    trajectory = FORMAT.convert_record(record(*steps, trajectory_type="parallel"), "r", domain)
    assert [m.role for m in trajectory.messages] == ["user", "assistant", "tool", "tool", "tool", "assistant"]
    turn = trajectory.messages[1]
    assert isinstance(turn, AssistantMessage) and turn.reasoning_content
    observations = [m for m in trajectory.messages if isinstance(m, ToolMessage)]
    assert [m.tool_call_id for m in observations] == [call.id for call in turn.tool_calls]
    assert [m.content for m in observations] == ["page 0", "page 1", "page 2"]


def test_an_answer_without_a_reason_gets_a_rationale_by_rule(domain: Domain) -> None:
    trajectory = FORMAT.convert_record(record(step(), final_answer="Yes."), "r", domain)
    assert trajectory.messages[-1] == AssistantMessage(
        "The call has been answered; the final answer can be written from that.", content="Yes."
    )


def test_a_stock_answer_keeps_its_mark_and_its_failure_is_no_rationale(domain: Domain) -> None:
    why = "Final-answer generation failed: No valid JSON found in text"
    answer = FORMAT.convert_record(
        record(step(), final_answer={"answer": "Limited.", "reason": why}), "r", domain
    ).messages[-1]
    assert isinstance(answer, AssistantMessage)
    assert answer.content == "Limited."
    assert "failed" not in (answer.reasoning_content or "")
    assert answer.extra == {"traject-bench": {"final_answer": why}}


# ---- tool lists ---------------------------------------------------------------------------------------------------


def test_a_documented_tool_has_its_parameters_with_types_and_its_original_name(domain: Domain) -> None:
    tools = {tool.name: tool for tool in FORMAT.convert_record(record(step()), "r", domain).tools}
    search = tools["Shop_Search"]
    assert search.extra == {"traject-bench": {"tool name": "Shop: Search"}}
    assert search.parameters == {
        "type": "object",
        "properties": {
            "q": {"type": "string", "description": "Words"},
            "page": {"type": "number", "default": 1},
            "day": {"type": "string", "format": "date"},
            "kind": {},
        },
        "required": ["q"],
    }


def test_a_list_is_filled_up_with_distractors_the_same_way_every_time(domain: Domain) -> None:
    lists = [[tool.schema for tool in FORMAT.convert_record(record(step()), name, domain).tools] for name in ("r", "s")]
    assert lists[0] == lists[1]
    assert len(lists[0]) == LIST_SIZE
    other = FORMAT.convert_record(record(step(), query="Other shoes?"), "r", domain)
    assert [tool.schema for tool in other.tools] != lists[0]


def test_a_tool_without_a_document_gets_a_schema_from_its_recorded_arguments(domain: Domain) -> None:
    steps = [step("Gone: Get"), step("Gone: Get", **{"required parameters": [], "optional parameters": []})]
    (tool,) = [t for t in FORMAT.convert_record(record(*steps), "r", domain).tools if t.name == "Gone_Get"]
    assert tool.extra == {"traject-bench": {"tool name": "Gone: Get", "inferred": True}}
    assert tool.parameters == {"type": "object", "properties": {"q": {"type": "string"}, "page": {"type": "integer"}}}


@pytest.mark.parametrize("argument", ["a", "b"])
def test_of_several_documents_the_one_that_declares_the_arguments_counts(domain: Domain, argument: str) -> None:
    used = step("Twice:  Get", **{"required parameters": [], "optional parameters": [{"name": argument, "value": ""}]})
    (tool,) = [t for t in FORMAT.convert_record(record(used), "r", domain).tools if t.name == "Twice_Get"]
    assert list(tool.parameters["properties"]) == [argument]


@given(st.lists(st.text(max_size=80) | st.sampled_from(["A: b", "A b", "A_b", "x" * 70, "x" * 71, "日本"]), max_size=8))
def test_function_names_are_legal_unique_and_independent_of_order(originals: list[str]) -> None:
    names = function_names(originals)
    assert all(LEGAL.fullmatch(name) for name in names.values())
    assert len(set(names.values())) == len(set(originals))
    assert function_names(originals[::-1]) == names


# ---- the real files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "records", "turns", "calls", "undocumented"),
    [("sequential", 1470, 9395, 9395, 465), ("parallel", 3200, 3200, 20893, 22)],
)
def test_all_published_records_convert(
    published: dict[str, list[Trajectory]], folder: str, records: int, turns: int, calls: int, undocumented: int
) -> None:
    converted = published[folder]
    assert len(converted) == len({t.id for t in converted}) == records
    said = [m for t in converted for m in t.messages if isinstance(m, AssistantMessage)]
    assert Counter(m.decision for m in said) == {Decision.CALL: turns, Decision.FINISH: records}
    assert sum(len(m.tool_calls) for m in said) == calls
    assert all(m.reasoning_content for m in said)
    tools = [tool for t in converted for tool in t.tools]
    assert sum(tool.extra["traject-bench"].get("inferred", False) for tool in tools) == undocumented
    assert all(LEGAL.fullmatch(tool.name) for tool in tools)


def test_every_list_holds_the_called_tools_once_and_at_least_six(published: dict[str, list[Trajectory]]) -> None:
    for trajectory in published["sequential"]:
        names = [tool.name for tool in trajectory.tools]
        called = {c.name for m in trajectory.messages if isinstance(m, AssistantMessage) for c in m.tool_calls}
        assert called <= set(names)
        assert len(names) == len(set(names)) == max(LIST_SIZE, len(called))


def test_a_published_step_keeps_arguments_and_output(real_data: Path, published: dict[str, list[Trajectory]]) -> None:
    path = real_data / "traject-bench" / "sequential" / "Finance.json.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        originals = json.load(file)
    finance = [t for t in published["sequential"] if t.extra["traject-bench"]["domain"] == "Finance"]
    for original, trajectory in zip(originals, finance, strict=True):
        turns = [m for m in trajectory.messages if isinstance(m, AssistantMessage) and m.tool_calls]
        outputs = [m.content for m in trajectory.messages if isinstance(m, ToolMessage)]
        assert outputs == [s["executed_output"] for s in original["tool list"]]
        for used, turn in zip(original["tool list"], turns, strict=True):
            given_arguments = [*used["required parameters"], *used["optional parameters"]]
            assert turn.tool_calls[0].parsed() == {a["name"]: a["value"] for a in given_arguments}


# ---- what is wrong is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("text", "Input should be an object"),
        ({}, "query: Field required"),
        (record(), "tool list: List should have at least 1 item"),
        (record({"tool name": "x"}), r"tool list\[\]\.executed_output: Field required"),
        (record(step(executed_output=None)), r"tool list\[\]\.executed_output: Input should be a valid string"),
        (record(step(), final_answer=3), "final_answer"),
        (record(step(), final_answer=" "), "final_answer: empty"),
        (record(step(**{"required parameters": [{"name": "q"}]})), r"required parameters\[\]\.value: Field required"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(domain: Domain, bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r", domain)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "value", "tool name", "answer", "reason"]), inner, max_size=3)
    ),
    max_leaves=6,
)
STEPS = st.lists(st.builds(lambda key, value: step(**{key: value}), st.sampled_from(list(step())), JUNK), max_size=3)
PARTS = {"query": st.text(max_size=9) | JUNK, "tool list": STEPS | JUNK, "final_answer": st.text(max_size=9) | JUNK}


@given(anything=JUNK | st.fixed_dictionaries(PARTS, optional={"trajectory_type": JUNK, "sequence_name": JUNK}))
def test_any_record_is_converted_whole_or_rejected(domain: Domain, anything: Any) -> None:
    try:
        trajectory = FORMAT.convert_record(anything, "r", domain)
    except RecordError as error:
        assert str(error)
    else:
        observations = [m for m in trajectory.messages if isinstance(m, ToolMessage)]
        assert len(observations) == len(anything["tool list"])


def test_a_file_without_its_tool_documents_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sequential").mkdir()
    path = tmp_path / "sequential" / "Shop.json"
    path.write_text("[]")
    with pytest.raises(DataError, match=r"expected .*tools/Shop_tool\.json\.xz"):
        list(convert(path, "traject-bench"))
