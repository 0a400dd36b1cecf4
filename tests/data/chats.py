"""Conversations for tests of formats that write what they read: drawn, compared by their words, read and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)


@st.composite
def conversations(draw: st.DrawFn, texts: st.SearchStrategy[str], system: bool = False) -> tuple[Message, ...]:
    """A user's turn, then answers and calls with or without their replies, all worded by ``texts``.

    Args:
        draw: Given by hypothesis.
        texts: What anybody says.
        system: Whether some begin with a system message.
    """
    arguments = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | texts, max_size=2).map(json.dumps)
    messages: list[Message] = [SystemMessage(draw(texts))] if system and draw(st.booleans()) else []
    messages.append(UserMessage(draw(texts)))
    for number in range(draw(st.integers(0, 3))):
        rationale = draw(st.none() | texts)
        if draw(st.booleans()):
            messages.append(AssistantMessage(rationale, content=draw(texts)))
            continue
        count = draw(st.integers(1, 3))
        calls = tuple(ToolCall(f"call_{number}_{n}", draw(texts) or "f", draw(arguments)) for n in range(count))
        messages.append(AssistantMessage(rationale, calls))
        messages += [ToolMessage(call.id, draw(texts)) for call in calls] if draw(st.booleans()) else []
    return tuple(messages)


def words(messages: Sequence[Message]) -> list[Any]:
    """Who says what, without ids; an empty system message says nothing."""
    return [
        (m.reasoning_content, [(c.name, c.arguments) for c in m.tool_calls], m.content)
        if isinstance(m, AssistantMessage)
        else (m.role, m.content)
        for m in messages
        if m != SystemMessage("")
    ]


def read_back(one: Format, record: Any) -> Trajectory:
    """Reads a record that must come back as it was."""
    assert one.write is not None
    trajectory = one.convert_record(record, "r")
    assert one.write(trajectory) == record
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
    return trajectory


def reads_as_written(one: Format, trajectory: Trajectory) -> None:
    """Checks that a trajectory is refused, or has the same words and tools when it is read again."""
    assert one.write is not None
    try:
        written = one.write(trajectory)
    except RecordError:
        return
    again = one.convert_record(json.loads(json.dumps(written)), "r")
    assert words(again.messages) == words(trajectory.messages)
    assert [tool.schema for tool in again.tools] == [tool.schema for tool in trajectory.tools]


def comes_back_or_is_rejected(one: Format, anything: Any) -> None:
    """Checks that any JSON is written as it was read, or rejected in words."""
    assert one.write is not None
    one.looks_like(anything)
    try:
        trajectory = one.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert one.write(trajectory) == anything
