r"""Predictions in the format of the paper's code: a JSON list of steps, one record each.

A record has ``tools`` (objects with ``Name``), ``reference`` and ``predictions``; both texts look like
``assistant: RATIONALE Next: caller.</s>caller: Action: NAME\nAction Input: JSON</s>``. They are read as
``evaluate-multi_agent.py`` of X-PLUG/Multi-LLM-Agent reads them:

* ``Next: give up`` anywhere in the text decides first, then ``Next: conclusion``; anything else is a call.
* The answer follows the last ``conclusion: ``; without one it is the whole text. ``</s>`` is dropped from it.
* A call is read from the text between the first and the second ``</s>``: the arguments follow the last
  ``Action Input:`` and are ``{}`` without one; the name follows the last ``Action:`` and ends at ``Action Input:``.
* Without ``Action:`` the name is ``none``; an empty name stays empty. Broken JSON is kept as it was written.
* Where that script would stop (a predicted call without ``</s>``, ``conclusion:`` with nothing after it), the
  prediction holds no call, or an empty answer. A *reference* like that is bad data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from alpha_umi.errors import DataError
from alpha_umi.evaluation.metrics import NO_CALL, StepPrediction, StepReference
from alpha_umi.trajectory import Decision, ToolCall

_END = "</s>"
_ANSWER = "conclusion:"


class _Tool(BaseModel):
    name: Annotated[str, Field(alias="Name", strict=True)]
    input: dict[str, Any] | None = None


class _Record(BaseModel):
    tools: list[_Tool]
    reference: Annotated[str, Field(strict=True)]
    predictions: Annotated[str, Field(strict=True)]
    instruction: Annotated[str, Field(strict=True)] = ""


_RECORDS = TypeAdapter(list[_Record])


def read_predictions(path: str | Path) -> list[tuple[StepReference, StepPrediction]]:
    """Reads a file of predictions into pairs for :func:`~alpha_umi.evaluation.metrics.paper_scores`.

    Raises:
        DataError: The file is missing, is not JSON, or a record lacks something; names the record.
    """
    pairs = []
    for number, record in enumerate(_read(path), 1):
        wanted = parse_step(record.reference)
        if wanted.decision is Decision.CALL and _END not in record.reference:
            raise DataError(path, f"record {number}: the reference is a call without a caller's text after '{_END}'")
        names = tuple(tool.name for tool in record.tools)
        declared = {tool.name: frozenset(tool.input) for tool in record.tools if tool.input is not None}
        reference = StepReference(names, wanted.decision, wanted.calls, wanted.answer, declared)
        pairs.append((reference, parse_step(record.predictions)))
    return pairs


def read_groups(path: str | Path) -> list[str]:
    """The instruction of each record: the nearest thing to a trajectory's name, for intervals over trajectories.

    Raises:
        DataError: As :func:`read_predictions`.
    """
    return [record.instruction for record in _read(path)]


def parse_step(text: str) -> StepPrediction:
    """Reads one step's text (rationale, decision, call or answer); never raises."""
    rationale = _rationale(text)
    if "Next: give up" in text:
        return StepPrediction(Decision.GIVE_UP, rationale=rationale)
    if "Next: conclusion" in text:
        return StepPrediction(Decision.FINISH, answer=_answer(text), rationale=rationale)
    _, separator, rest = text.partition(_END)
    calls = (_call(rest.partition(_END)[0]),) if separator else ()
    return StepPrediction(Decision.CALL, calls, rationale=rationale)


def _answer(text: str) -> str:
    if _ANSWER not in text:
        return text.replace(_END, "")
    return text.rpartition(f"{_ANSWER} ")[2].replace(_END, "") if f"{_ANSWER} " in text else ""


def _call(text: str) -> ToolCall:
    _, has_input, arguments = text.rpartition("Action Input:")
    _, has_name, name = text.rpartition("Action:")
    return ToolCall(
        id="call_0",
        name=name.partition("Action Input:")[0].strip() if has_name else NO_CALL.name,
        arguments=arguments.strip() if has_input else NO_CALL.arguments,
    )


def _rationale(text: str) -> str:
    """The planner's text without its header (the reference's inference writes ``asssitant:``) and its decision."""
    text = text.partition(_END)[0].rpartition("Next: ")[0] or text.partition(_END)[0]
    for header in ("assistant: ", "asssitant: ", "planner: "):
        text = text.removeprefix(header)
    return text.strip()


def _read(path: str | Path) -> list[_Record]:
    try:
        return _RECORDS.validate_python(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except OSError as error:
        raise DataError(path, f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise DataError(path, f"not JSON: {error.msg} at column {error.colno}", error.lineno) from error
    except RecursionError as error:
        raise DataError(path, "nested too deeply") from error
    except ValidationError as error:
        raise DataError(path, _sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][1:]]
    record = f"record {int(first['loc'][0]) + 1}: " if first["loc"] else ""
    return f"{record}{'.'.join(where) + ': ' if where else ''}{first['msg']}"
