r"""GSM8K (openai/grade-school-math): worked solutions, whose calculator annotations become programs by rule.

A record is ``{"question", "answer"}``; the answer's text holds annotations ``<<48/2=24>>`` and ends in ``#### 72``.
The solution is cut at its annotations:

* each is a call ``python(code="48/2")``; the observation is what Python makes of it (``24.0``), not what is written;
* the words before it, back to the annotation before, are the call's rationale (without the ``= $`` they end in, as the
  result is not known yet);
* the words after the last one are the rationale for finishing, and the final answer is ``The answer is 72.``

A record is rejected where its programs don't lead to its answer: there are none, one gives another number than the
annotation says (beyond its rounding), or the last one gives another number than the answer. The answer itself is in
``extra["gsm8k"]["answer"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.format import Format
from alpha_umi.data.programs import PYTHON, value_of
from alpha_umi.data.records import BrokenLine, RecordError, read_records, reason
from alpha_umi.data.tool_schemas import keep
from alpha_umi.errors import DataError
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "gsm8k"

_ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_END = re.compile(r"(?:\A|\n)#### *([^\n]*\S)\s*\Z")
_OPEN_END = re.compile(r"[\s=$€£]+\Z")
_NUMBER = re.compile(r"-?(?:\d{1,300}\.?\d*|\.\d+)", re.ASCII)
_EQUAL = 1e-9
"""Relative; floating-point arithmetic is not exact."""


@dataclass(frozen=True)
class Question:
    """A question to be answered with a number.

    Attributes:
        id: Unique within its file.
        text: What is asked.
        answer: The right number, as it is written.
        calculations: Annotations of the worked solution.
    """

    id: str
    text: str
    answer: str
    calculations: int


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    question: str = Field(min_length=1)
    answer: str

    def parts(self) -> tuple[str, str]:
        """The worked solution and the number behind ``####``."""
        end = _END.search(self.answer)
        if end is None:
            raise RecordError("answer: no last line with ####")
        if "<<" in end[1]:
            raise RecordError("answer: the last line holds an annotation")
        return self.answer[: end.start()], end[1]


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    solution, answer = parsed.parts()
    messages = (UserMessage(parsed.question), *_steps(solution, answer))
    origin = {"answer": answer} | (parsed.model_extra or {})
    return Trajectory((PYTHON,), messages, name, keep(NAMESPACE, origin))


def read_questions(path: str | Path) -> Iterator[Question]:
    """The questions of a file, those included whose worked solution is no trajectory.

    Raises:
        DataError: The file can't be read, or a line of it is no record.
    """
    stem = Path(path).name.split(".")[0]
    for index, record in enumerate(read_records(Path(path))):
        if isinstance(record, BrokenLine):
            raise DataError(path, record.reason, index + 1)
        try:
            parsed = _Record.model_validate(record)
            solution, answer = parsed.parts()
        except ValidationError as error:
            raise DataError(path, f"no GSM8K record: {reason(error)}", index + 1) from error
        except RecordError as error:
            raise DataError(path, f"no GSM8K record: {error}", index + 1) from error
        yield Question(f"{stem}-{index}", parsed.question, answer, len(_ANNOTATION.findall(solution)))


def looks_like(record: Any) -> bool:
    """Whether it has a question and an answer that ends in a line with ``####``."""
    if not isinstance(record, dict) or not isinstance(record.get("question"), str):
        return False
    return isinstance(record.get("answer"), str) and _END.search(record["answer"]) is not None


def _steps(solution: str, answer: str) -> Iterator[Message]:
    at, value = 0, None
    for number, found in enumerate(_ANNOTATION.finditer(solution), 1):
        code, value = found[1].strip(), _value(found[1], found[2])
        call = ToolCall(f"call_{number}", PYTHON.name, json_text({"code": code}))
        yield AssistantMessage(_words(_OPEN_END.sub("", solution[at : found.start()])), (call,))
        yield ToolMessage(call.id, repr(value))
        at = found.end()
    rationale = _words(solution[at:])
    if value is None:
        raise RecordError("answer: no annotation, so there is nothing to run")
    if abs(value - _number(answer)) > _EQUAL * max(1, abs(value)):
        raise RecordError("answer: the last program gives another number")
    yield AssistantMessage(rationale, content=f"The answer is {answer}.")


def _value(expression: str, written: str) -> int | float:
    """What Python makes of an annotation, which has to be the result that is written, as far as that is exact."""
    value = value_of(expression.strip())
    decimals = len(written.strip().partition(".")[2])
    if abs(value - _number(written)) > 10**-decimals:
        raise RecordError("answer: a program gives another number than its annotation")
    return value


def _number(text: str) -> float:
    plain = text.strip().replace(",", "")
    if _NUMBER.fullmatch(plain) is None:
        raise RecordError("answer: a result is no number")
    return float(plain)


def _words(text: str) -> str | None:
    if "<<" in text or ">>" in text:
        raise RecordError("answer: an annotation is not <<expression=result>>")
    return text.strip() or None


FORMAT = Format("gsm8k", "GSM8K questions; calculator annotations become programs", read, looks_like)
