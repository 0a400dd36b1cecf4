"""Malformed records: each is converted whole or rejected with a reason; nothing crashes, nothing hangs."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alpha_umi.data import FORMATS, Rejected, convert_file
from alpha_umi.data.format import Format
from alpha_umi.trajectory import (
    AssistantMessage,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

READABLE = [one for one in FORMATS.values() if one.read is not None]
TOOL = Tool.of("find", "Finds.", {"type": "object", "properties": {"q": {"type": "string", "description": "What"}}})
SAMPLE = Trajectory((TOOL,), (
    UserMessage("Find it."),
    AssistantMessage("Now.", (ToolCall("c", "find", '{"q": "x"}'),)),
    ToolMessage("c", '{"found": [1, 2]}'),
    AssistantMessage("So.", content="Here."),
), "sample")  # fmt: skip
CALLS_ONLY = Trajectory((TOOL,), SAMPLE.messages[:2], "calls")
OTHERS: list[dict[str, Any]] = [
    {"question": "How many?", "answer": "He has 3*4=<<3*4=12>>12.\n#### 12"},
    {"instruction": "Who?", "input": "", "output": "Thought: I\nAction: search[]\nObservation: y\nAction: finish[z]\n"},
    {"query": "q", "tool list": [{"tool name": "A: b", "executed_output": "x"}], "final_answer": "y"},
    {"task_id": 1, "reward": 1.0, "info": {}, "traj": [{"role": "user", "content": "hi"}], "trial": 0},
    {"answer_generation": {"query": "q", "function": [], "train_messages": [], "finish_type": ""}, "tree": {}},
    {"id": "x", "conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "Thought: a"}]},
]  # fmt: skip
STRANGE: list[Any] = [
    None, True, -1, 1e400, 10**400, "", "\ud800", "\udfff{", "</tool_call>", [], {}, [[]], {"": {}}, "{" * 50,
    "x" * 9_999,
    {"role": "user"}, "Action: \nAction Input: {", "<tool_call>{}</tool_call>", "null", {"name": None}, [{"from": 7}],
]  # fmt: skip


def seeds() -> list[Any]:
    """Well-formed records to spoil: what each format writes, and a few it only reads."""
    written: list[Any] = [json.loads(SAMPLE.to_json()), *OTHERS]
    for one in FORMATS.values():
        for trajectory in (SAMPLE, CALLS_ONLY):
            try:
                written.append(json.loads(json_text(one.write(trajectory))) if one.write is not None else {})
            except ValueError:
                continue
    return written


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def spoiled(rng: random.Random, record: Any) -> str:
    """One line of a JSONL file that is no longer what it was."""
    record = copy.deepcopy(record)
    for _ in range(rng.choice((1, 1, 2, 4))):
        found = list(places(record))
        if not found:
            break
        container, key = rng.choice(found)
        how = rng.randrange(5)
        if how == 0:
            del container[key]
        elif how == 1:
            container[key] = copy.deepcopy(rng.choice(STRANGE))
        elif how == 2:
            container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}
        elif how == 3 and isinstance(container[key], str):
            text = container[key]
            at = rng.randrange(len(text) + 1)
            container[key] = (
                text[:at] + rng.choice(("", "\x00", "\ud83d", '"', "\\", "}", "\n\n", text)) + text[at + 1 :]
            )
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(rng.choice(STRANGE)))
            rng.shuffle(container)
    line = json.dumps(record)
    if rng.random() < 0.1:
        line = line[: rng.randrange(1, len(line) + 1)]
    if rng.random() < 0.02:
        line = '{"messages":' + rng.choice("[{") * rng.choice((10, 2_000, 50_000)) + line
    return line


def convert_spoiled(one: Format, count: int, seed: int, folder: Path) -> None:
    rng, records = random.Random(f"{one.name}/{seed}"), seeds()
    source = folder / "Domain.jsonl"
    source.write_text("".join(spoiled(rng, rng.choice(records)) + "\n" for _ in range(count)), encoding="utf-8")
    (folder / "tools.json").write_text("[]")
    for name in ("tool.jsonl", "Domain_tool.json"):
        (folder / name).write_text("")
    (folder.parent / "tools").mkdir(exist_ok=True)
    (folder.parent / "tools" / "Domain_tool.json").write_text("[]")
    summary = convert_file(source, one.name, folder / "out.jsonl")
    assert summary.read >= count
    assert summary.read == summary.converted + sum(summary.rejected.values())
    assert summary.rejected and all(summary.rejected)
    assert len(summary.rejected) < 2_000, "reasons name causes, not values"


@pytest.mark.parametrize("one", READABLE, ids=lambda one: one.name)
def test_a_malformed_record_is_converted_whole_or_rejected(one: Format, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    convert_spoiled(one, 120, 0, folder)


@pytest.mark.slow
@pytest.mark.parametrize("one", READABLE, ids=lambda one: one.name)
def test_a_hundred_thousand_malformed_records_do_no_harm(one: Format, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    convert_spoiled(one, 100_000 // len(READABLE) + 1, 1, folder)


@pytest.mark.parametrize("one", READABLE, ids=lambda one: one.name)
def test_no_format_raises_where_it_looks(one: Format):
    rng = random.Random(3)
    for record in [*STRANGE, *seeds()]:
        assert one.looks_like(record) in (True, False)
    for line in (spoiled(rng, rng.choice(seeds())) for _ in range(60)):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        assert one.looks_like(record) in (True, False)


@pytest.mark.parametrize("start", ['{"messages": "', "[", '{"a":', '"'])
def test_a_line_of_many_megabytes_is_one_rejected_record(start: str, tmp_path: Path):
    source = tmp_path / "in.jsonl"
    source.write_text(start * (8_000_000 // len(start)) + "\n" + json.dumps({"messages": []}) + "\n")
    summary = convert_file(source, "openai", tmp_path / "out.jsonl")
    assert summary.read == 2
    assert summary.converted + sum(summary.rejected.values()) == 2
    assert Rejected(0, "x", "\ud800").to_json()


def test_a_system_message_survives_every_format_that_says_it_can_carry_it():
    """What a format can't carry it refuses; what it accepts comes back."""
    with_system = Trajectory(SAMPLE.tools, (SystemMessage("Be brief."), *SAMPLE.messages), "sample")
    for one in READABLE:
        if one.write is None:
            continue
        try:
            record = one.write(with_system)
        except ValueError:
            continue
        back = one.convert_record(json.loads(json_text(record)), "sample")
        kept = [m.content for m in back.messages if isinstance(m, SystemMessage)]
        # in ToolBench's chains the system message is the search's prompt, no part of the conversation
        assert kept == ["Be brief."] or "Be brief." in back.extra["toolbench"]["system"], one.name
