"""tau-bench's histories: ``{"task_id", "trial", "reward", "info", "traj"}``, ``traj`` being OpenAI messages.

The text beside a call is its rationale; calls of the tool ``think`` stay calls. Conversations end with what the user or
a tool said last, not with an answer. The records don't hold the tools: they are inferred from all calls of the file
(so that every record shows the same list), or read from ``--tools``. ``reward`` is in ``extra``: 1.0 is solved.

The few-shot file, ``{"messages_display": ...}`` with lines ``user: ...`` and ``assistant: ...``, lost its calls: only
dialogues without any are converted.

The tasks are the benchmark's test set: say so where something is trained on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format, Options
from alpha_umi.data.openai_messages import ChatMessage, Dialect, read_messages
from alpha_umi.data.records import RecordError, read_records
from alpha_umi.data.tool_schemas import inferred_tools, keep, read_tool_file, read_tools
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolCall, Trajectory, UserMessage

NAMESPACE = "tau-bench"
TAU_BENCH = Dialect(NAMESPACE)

_TURN = re.compile(r"^(user|assistant|tool|system): ", re.MULTILINE)
_LOST = "None"


class _History(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    task_id: int
    traj: list[ChatMessage] = Field(min_length=1)
    tools: list[Any] | None = None


def read(record: Any, name: str, tools: tuple[Tool, ...] | None = None) -> Trajectory:
    """Makes a trajectory of one record, with the tools of its file (of the record alone if there are none)."""
    if isinstance(record, dict) and "messages_display" in record:
        return _dialogue(record, name)
    parsed = _History.model_validate(record)
    messages = read_messages(record["traj"], parsed.traj, TAU_BENCH)
    if parsed.tools is not None:
        tools, _ = read_tools(parsed.tools, NAMESPACE)
    if tools is None:
        tools = inferred_tools(_calls(messages), NAMESPACE)
    fields = {key: value for key, value in record.items() if key not in ("traj", "tools")}
    return Trajectory(tools, messages, name, keep(NAMESPACE, fields))


def looks_like(record: Any) -> bool:
    """Whether it is a history of a task, or a dialogue of the few-shot file."""
    if not isinstance(record, dict):
        return False
    return {"task_id", "traj", "reward"} <= record.keys() or isinstance(record.get("messages_display"), str)


def _tools_of(file: Path, options: Options) -> tuple[Tool, ...]:
    """The tools that the calls of a file show, or those of ``--tools``."""
    if options.tools is not None:
        return read_tool_file(options.tools, NAMESPACE)
    return inferred_tools(chain.from_iterable(map(_record_calls, read_records(file))), NAMESPACE)


def _record_calls(record: Any) -> list[ToolCall]:
    """The calls of a record; none if it will be rejected."""
    try:
        parsed = _History.model_validate(record)
        return list(_calls(read_messages(record["traj"], parsed.traj, TAU_BENCH)))
    except (ValueError, RecursionError):  # whatever rejects it: pydantic's errors and RecordError are ValueErrors
        return []


def _calls(messages: tuple[Message, ...]) -> Iterator[ToolCall]:
    for message in messages:
        if isinstance(message, AssistantMessage):
            yield from message.tool_calls


def _dialogue(record: dict[str, Any], name: str) -> Trajectory:
    text = record["messages_display"]
    if not isinstance(text, str):
        raise RecordError("messages_display: not a text")
    before, *parts = _TURN.split(text)
    if before or not parts:
        raise RecordError("messages_display: doesn't begin with a turn")
    messages: list[Message] = []
    for role, said in zip(parts[::2], parts[1::2], strict=True):
        said = said.removesuffix("\n")
        if role == "tool" or said == _LOST:
            raise RecordError("messages_display: its calls are lost, only their results are left")
        if role == "system":
            raise RecordError("messages_display: a turn of neither the user nor the assistant")
        messages.append(UserMessage(said) if role == "user" else AssistantMessage(content=said))
    fields = {key: value for key, value in record.items() if key != "messages_display"}
    return Trajectory((), tuple(messages), name, keep(NAMESPACE, fields))


FORMAT = Format(
    "tau-bench", "tau-bench's histories: a task's `traj` of OpenAI messages, with its reward", read, looks_like,
    context=_tools_of,
)  # fmt: skip
