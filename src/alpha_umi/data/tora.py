r"""ToRA's corpus examples: a rationale, a Python program, its output, and the answer, as one assistant text.

A record is ``{"messages": [user, assistant], "gt", ...}``; the assistant's text has blocks of three backticks, each
``python`` followed by its ``output``. A program is a call of ``python(code)``, the text before it its rationale, the
text after the last output the final answer. A text without a program is an answer alone. The fields beside
``messages`` are kept in ``extra["tora"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format
from alpha_umi.data.programs import PYTHON
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import keep
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "tora"

_RUN = re.compile(r"```python\n(.*?)\n?```\s*```output\n(.*?)\n?```", re.DOTALL)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["user", "assistant"]
    content: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    messages: list[_Turn] = Field(min_length=2)
    gt: str


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    if [turn.role for turn in parsed.messages] != ["user", "assistant"]:
        raise RecordError("messages: not one user and one assistant message")
    asked, solved = parsed.messages
    origin = {key: value for key, value in record.items() if key != "messages"}
    messages = (UserMessage(asked.content), *_steps(solved.content))
    return Trajectory((PYTHON,), messages, name, keep(NAMESPACE, origin))


def looks_like(record: Any) -> bool:
    """Whether it has messages beside the data set's name and the expected answer."""
    return isinstance(record, dict) and {"messages", "gt", "gt_cot", "dataset"} <= record.keys()


def _steps(text: str) -> Iterator[Message]:
    at = 0
    for number, found in enumerate(_RUN.finditer(text), 1):
        call = ToolCall(f"call_{number}", PYTHON.name, json_text({"code": found[1]}))
        yield AssistantMessage(_words(text[at : found.start()]) or None, (call,))
        yield ToolMessage(call.id, found[2])
        at = found.end()
    answer = _words(text[at:])
    if not answer:
        raise RecordError("messages[]: no answer after the last output")
    yield AssistantMessage(content=answer)


def _words(text: str) -> str:
    if "```" in text:
        raise RecordError("messages[]: a block that is not a program with its output")
    return text.strip()


FORMAT = Format("tora", "ToRA's examples: rationale, Python program, output, answer", read, looks_like)
