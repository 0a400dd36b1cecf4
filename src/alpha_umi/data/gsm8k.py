r"""GSM8K (openai/grade-school-math): worked solutions, whose calculator annotations become calls by rule.

A record is ``{"question", "answer"}``; the answer's text holds annotations ``<<48/2=24>>`` and ends in ``#### 72``.
The solution is cut at its annotations:

* each is a call ``calculator(expression="48/2")`` with the observation ``24``;
* the words before it, back to the annotation before, are the call's rationale (without the ``= $`` they end in, as the
  result is not known yet);
* the words after the last one are the rationale for finishing, and the final answer is ``The answer is 72.``

A solution without annotations calls nothing: all of its words are the rationale for the answer. The last number itself
is in ``extra["gsm8k"]["answer"]``. No expression is evaluated: the recorded result is the observation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import keep
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "gsm8k"

CALCULATOR = Tool.of(
    "calculator",
    "Evaluates an arithmetic expression.",
    {
        "type": "object",
        "properties": {"expression": {"type": "string", "description": "Numbers, + - * / and parentheses."}},
        "required": ["expression"],
    },
)
"""The one tool."""

_ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_END = re.compile(r"(?:\A|\n)#### *([^\n]*\S)\s*\Z")
_OPEN_END = re.compile(r"[\s=$€£]+\Z")


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    question: str = Field(min_length=1)
    answer: str


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    end = _END.search(parsed.answer)
    if end is None:
        raise RecordError("answer: no last line with ####")
    if "<<" in end[1]:
        raise RecordError("answer: the last line holds an annotation")
    messages = (UserMessage(parsed.question), *_steps(parsed.answer[: end.start()], end[1]))
    origin = {"answer": end[1]} | (parsed.model_extra or {})
    return Trajectory((CALCULATOR,), messages, name, keep(NAMESPACE, origin))


def looks_like(record: Any) -> bool:
    """Whether it has a question and an answer that ends in a line with ``####``."""
    if not isinstance(record, dict) or not isinstance(record.get("question"), str):
        return False
    return isinstance(record.get("answer"), str) and _END.search(record["answer"]) is not None


def _steps(solution: str, answer: str) -> Iterator[Message]:
    at = 0
    for number, found in enumerate(_ANNOTATION.finditer(solution), 1):
        call = ToolCall(f"call_{number}", CALCULATOR.name, json_text({"expression": found[1].strip()}))
        yield AssistantMessage(_words(_OPEN_END.sub("", solution[at : found.start()])), (call,))
        yield ToolMessage(call.id, found[2].strip())
        at = found.end()
    yield AssistantMessage(_words(solution[at:]), content=f"The answer is {answer}.")


def _words(text: str) -> str | None:
    if "<<" in text or ">>" in text:
        raise RecordError("answer: an annotation is not <<expression=result>>")
    return text.strip() or None


FORMAT = Format("gsm8k", "GSM8K questions; calculator annotations become calls", read, looks_like)
