"""ToolBench's trees: the chosen path, then every other path that finishes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import alpha_umi, alpha_umi_chains, convert_file
from alpha_umi.data.format import Format
from alpha_umi.data.function_chains import FINISH_FUNCTION, GIVE_UP_TEXT
from alpha_umi.data.records import RecordError, Rejected
from alpha_umi.data.toolbench import FORMAT, looks_like, units
from alpha_umi.trajectory import AssistantMessage, Decision, ToolCall, ToolMessage, Trajectory, UserMessage

FIND = {"name": "find", "description": "Finds.", "parameters": {"type": "object", "properties": {}, "optional": []}}
PROMPT = {"role": "system", "content": "You are AutoGPT."}
ASKED = {"role": "user", "content": "\nFind it.\nBegin!\n"}
ANSWER = '{\n  "return_type": "give_answer",\n  "final_answer": "42"\n}'
GIVE_UP = '{\n  "return_type": "give_up_and_restart"\n}'


def node(kind: str, text: str, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"node_type": kind, "description": text, "children": list(children), "is_terminal": False} | more


def call(name: str, arguments: str, *children: dict[str, Any], seen: str = "seen") -> dict[str, Any]:
    return node("Action", name, node("Action Input", arguments, *children, observation=seen))


def said(name: str, arguments: str, thought: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": thought, "function_call": {"name": name, "arguments": arguments}}


def answer_file(*children: dict[str, Any], chosen: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    generation: dict[str, Any] = {"query": "Find it.", "function": [FIND, FINISH_FUNCTION], "valid_data": True}
    if chosen is not None:
        generation["train_messages"] = [[PROMPT, ASKED, *chosen[:1]], [PROMPT, ASKED, *chosen]]
    tree = {"size": 9, "tree": node("Action Input", "", *children)}
    return {"win": chosen is not None, "tree": tree, "answer_generation": generation}


SEEN = {"role": "function", "name": "find", "content": "seen"}
CHOSEN = [said("find", "{}"), SEEN, said("Finish", ANSWER, "Done.")]
GAVE_UP = node("Thought", "Nothing fits.", call("Finish", GIVE_UP))
DONE = node("Thought", "Done.", call("Finish", ANSWER))
FILE = answer_file(call("find", "{}", GAVE_UP, DONE), call("find", "{}"), GAVE_UP, chosen=CHOSEN)


def convert(record: Any, tmp_path: Path, form: Format = FORMAT) -> list[Trajectory | Rejected]:
    path = tmp_path / "10_tree.json"
    path.write_text(json.dumps(record))
    return list(form.convert(path))


def others(record: Any, tmp_path: Path) -> list[Trajectory]:
    return [item for item in convert(record, tmp_path)[1:] if isinstance(item, Trajectory)]


# ---- the real files -----------------------------------------------------------------------------------------------


def test_the_15_trees_hold_13_chosen_paths_and_15_others_that_gave_up(real_data: Path) -> None:
    found: Counter[object] = Counter()
    for name in ("G1_answer", "G2_answer", "G3_answer"):
        ids: set[str | None] = set()
        for item in FORMAT.convert(real_data / "toolbench" / "answer" / name):
            if isinstance(item, Rejected):
                found[item.reason] += 1
                continue
            last = item.messages[-1]
            assert isinstance(last, AssistantMessage)
            found[item.extra["toolbench"]["path"], last.decision] += 1
            assert item.id not in ids
            ids.add(item.id)
            assert "Finish" not in [tool.name for tool in item.tools]
            assert Trajectory.from_json(item.to_json()) == item
            assert alpha_umi.write(item)["instruction"] == item.instruction
    assert found == {
        ("chosen", Decision.FINISH): 9,
        ("chosen", Decision.GIVE_UP): 4,
        ("other", Decision.GIVE_UP): 15,
        "the search chose no path": 2,
    }


def test_a_summary_counts_the_trees_and_the_paths_that_came_of_them(real_data: Path, tmp_path: Path) -> None:
    trees = len(list((real_data / "toolbench" / "answer" / "G1_answer").iterdir()))
    summary = convert_file(real_data / "toolbench" / "answer" / "G1_answer", "auto", tmp_path / "out.jsonl")
    assert summary.elements == trees == 5
    assert summary.read == summary.converted + sum(summary.rejected.values()) == 8
    assert summary.sentence() == "7 of 8 paths of 5 trees converted (toolbench)"


def test_the_published_chosen_paths_are_written_as_they_were(real_data: Path) -> None:
    for path in sorted((real_data / "toolbench" / "answer").glob("*/*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        chains = file["answer_generation"].get("train_messages")
        if chains:
            written = alpha_umi_chains.write(FORMAT.convert_record(file, "r"))
            assert written["chains"] == chains[-1]
            assert written["tools"] == [stage_1_document(one) for one in file["answer_generation"]["function"][:-1]]


def stage_1_document(function: dict[str, Any]) -> dict[str, Any]:
    """A function of ToolBench's as the reference code's first preprocessing describes it."""
    arguments = function["parameters"]["properties"].items()
    told = {name: ", ".join([one["type"], one["description"][-256:]]) for name, one in arguments}
    return {"Name": function["name"], "function": function["description"][:256], "input": told}


# ---- paths --------------------------------------------------------------------------------------------------------


def test_the_chosen_path_comes_first_and_its_finish_is_no_call() -> None:
    trajectory = FORMAT.convert_record(FILE, "r")
    assert trajectory.messages == (
        UserMessage("Find it."),
        AssistantMessage(None, (ToolCall("call_1", "find", "{}"),)),
        ToolMessage("call_1", "seen"),
        AssistantMessage("Done.", content="42"),
    )
    assert trajectory.extra == {"toolbench": {"system": "You are AutoGPT.", "path": "chosen"}}
    assert [json.loads(tool.schema) for tool in trajectory.tools] == [FIND]


def test_every_other_path_that_finishes_is_a_trajectory_of_its_own(tmp_path: Path) -> None:
    converted = convert(FILE, tmp_path)
    assert [item.id for item in converted if isinstance(item, Trajectory)] == ["10_tree-0", "10_tree-1", "10_tree-2"]
    deep, shallow = others(FILE, tmp_path)
    assert [message.role for message in deep.messages] == ["user", "assistant", "tool", "assistant"]
    assert shallow.messages == (UserMessage("Find it."), AssistantMessage("Nothing fits.", refusal=GIVE_UP_TEXT))
    assert shallow.extra == {"toolbench": {"system": "You are AutoGPT.", "path": "other"}}


def test_a_second_answer_of_the_tree_is_a_path_too(tmp_path: Path) -> None:
    (other,) = others(answer_file(call("find", "{}", DONE), DONE, chosen=CHOSEN), tmp_path)
    assert other.messages == (UserMessage("Find it."), AssistantMessage("Done.", content="42"))


def test_a_search_that_chose_no_path_still_has_the_paths_it_gave_up_on(tmp_path: Path) -> None:
    rejected, other = convert(answer_file(GAVE_UP), tmp_path)
    assert isinstance(rejected, Rejected) and rejected.reason == "the search chose no path"
    assert isinstance(other, Trajectory) and other.extra == {"toolbench": {"system": None, "path": "other"}}


def test_a_thought_of_a_request_of_its_own_is_a_turn_of_its_own(tmp_path: Path) -> None:
    own = node("Thought", "Hm.", call("find", "{}", GAVE_UP), expand_num=3)
    first = node("Thought", "First.", node("Thought", "Second.", call("Finish", GIVE_UP)))
    one, other = others(answer_file(own, first), tmp_path)
    assert one.messages[1:3] == (AssistantMessage("Hm."), AssistantMessage(None, (ToolCall("call_1", "find", "{}"),)))
    assert other.messages[1:] == (AssistantMessage("First."), AssistantMessage("Second.", refusal=GIVE_UP_TEXT))


def test_a_finish_that_the_search_refused_is_a_call(tmp_path: Path) -> None:
    refused = call("Finish", "{}", call("Finish", GIVE_UP), seen='{"error": "must have return_type"}')
    (other,) = others(answer_file(refused), tmp_path)
    assert [m.decision for m in other.messages if isinstance(m, AssistantMessage)] == [Decision.CALL, Decision.GIVE_UP]


def test_a_path_of_the_tree_written_as_alpha_umi_is_stage_2_data(tmp_path: Path) -> None:
    seen = call("find", "{}", GAVE_UP, seen='{"error": "", "response": "here"}')
    (other,) = others(answer_file(seen), tmp_path)
    written = alpha_umi.write(other)
    assert [turn["value"] for turn in written["conversations"]] == [
        "Find it.", " Next: caller.", "Action: find\nAction Input: {}", "here", "Nothing fits.\n Next: give up.",
    ]  # fmt: skip
    assert written["tools"] == [{"Name": "find", "function": "Finds.", "input": {}}]


# ---- refusing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({}, "answer_generation: Field required"),
        (answer_file(), "the search chose no path"),
        (answer_file(chosen=[SEEN]), "a function message answers no call"),
        (answer_file(chosen=[said("find", "{}"), said("find", "{}")]), "a call has no function message"),
        ({"answer_generation": {"query": "x", "function": [{"name": ""}], "train_messages": [[ASKED]]}}, "no name"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


@pytest.mark.parametrize(
    "tree",
    [{}, {"tree": {"node_type": "Leaf"}}, answer_file(node("Action Input", "{}", call("Finish", GIVE_UP)))["tree"]],
)
def test_a_broken_tree_is_rejected_beside_the_chosen_path(tree: Any, tmp_path: Path) -> None:
    chosen, rejected = convert(FILE | {"tree": tree}, tmp_path)
    assert isinstance(chosen, Trajectory)
    assert isinstance(rejected, Rejected) and rejected.reason == "the tree's other paths can't be read"


def test_a_file_without_a_tree_is_its_chosen_path(tmp_path: Path) -> None:
    (chosen,) = convert({"answer_generation": FILE["answer_generation"]}, tmp_path)
    assert isinstance(chosen, Trajectory)


def test_only_answer_files_are_recognised() -> None:
    assert looks_like(FILE) and all(map(looks_like, units(FILE)))
    assert not any(map(looks_like, [None, [], {}, {"answer_generation": []}, {"answer_generation": {"query": "x"}}]))


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "name"]), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.sampled_from([PROMPT, ASKED, SEEN, *CHOSEN, said("find", "{oops")]) | JUNK
GENERATION = st.fixed_dictionaries(
    {"query": st.just("x") | JUNK, "function": st.just([FIND]) | JUNK},
    optional={"train_messages": st.lists(st.lists(MESSAGES, max_size=5) | JUNK, max_size=2)},
)
NODES = st.recursive(
    st.builds(
        node, st.sampled_from(["Thought", "Action", "Action Input"]), st.sampled_from(["find", "Finish", GIVE_UP])
    ),
    lambda inner: st.builds(node, st.sampled_from(["Thought", "Action", "Action Input"]), st.just("Finish"), inner),
    max_leaves=9,
)
FILES = st.fixed_dictionaries(
    {"answer_generation": GENERATION | JUNK}, optional={"tree": st.fixed_dictionaries({"tree": NODES | JUNK}) | JUNK}
)


@given(JUNK | FILES)
def test_any_file_is_converted_or_rejected(anything: Any) -> None:
    looks_like(anything)
    for unit in FORMAT._units(anything, None):
        try:
            trajectory = FORMAT.convert_record(unit, "r")
        except RecordError as error:
            assert str(error)
        else:
            assert Trajectory.from_json(trajectory.to_json()) == trajectory
