"""ToolRL's rows, one step of a dialogue each: ``{"instruction", "input", "output"}`` (``rlla_sft.json``).

* ``instruction``: a sentence for the system, the tools as numbered blocks of Name, Description and Parameters, then
  the rules of the output's form. The sentence becomes the system message; the rules, which describe tags that the
  record doesn't have, stay in ``extra``.
* ``input``: the history, ``<user>``, ``<think>``, ``<tool_call>``, ``<obs>`` and ``<response>`` blocks.
* ``output``: the step, ``<think>`` and then ``<tool_call>`` (a JSON object a line) or ``<response>``. A step that calls
  ends the trajectory without an observation. A turn that does both has its response in the rationale.

The rows for reinforcement learning (``train.parquet``, ``test.parquet``) hold the same texts as a ``prompt`` of a
system and a user message and as ``reward_model.ground_truth``, and in ``extra_info`` a second time, which is left out.
Nobody wrote their thoughts: nearly all are one of two fixed sentences.

Names like ``Search Managers`` become legal function names. Parameter types come from several sources
(``str, optional``, ``List[int]``) and become JSON Schema; which parameters are required is not said, and the calls
don't always keep to the types. The tools as they were are in ``extra``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from alpha_umi.data.call_texts import type_schema
from alpha_umi.data.format import Format
from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import keep, read_call
from alpha_umi.data.traject_bench import function_names
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "toolrl"

_HISTORY = "**Dialogue Records History**"
_INSTRUCTION = re.compile(
    r"(?P<system>.*?)\s*\*\*Available Tools\*\*\nIn your response, you can use the following tools:\n"
    r"(?P<tools>.*?)\n\n(?P<rules>\*\*Steps for Each Turn\*\*\n.*)",
    re.DOTALL,
)
_TOOL = re.compile(r"\d+\. Name: (.*)\nDescription: ((?:.|\n)*)\nParameters: (.*)")
_NEXT_TOOL = re.compile(r"\n(?=\d+\. Name: )")
_BLOCK = re.compile(r"\s*<(user|think|tool_call|obs|response)>(.*?)</\1>\s*", re.DOTALL)


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    instruction: str
    input: str
    output: str


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user"]
    content: str


class _Reward(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    ground_truth: str


class _Prompted(BaseModel):
    """A row for reinforcement learning."""

    model_config = ConfigDict(extra="allow", strict=True)

    prompt: list[_Said]
    reward_model: _Reward
    extra_info: dict[str, Any] = {}

    def row(self) -> _Row:
        if [said.role for said in self.prompt] != ["system", "user"]:
            raise RecordError("prompt: not a system message and a user message")
        texts = {
            "instruction": self.prompt[0].content,
            "input": self.prompt[1].content,
            "output": self.reward_model.ground_truth,
        }
        more = {key: value for key, value in self.extra_info.items() if texts.get(key) != value}
        rest = {"reward_model": self.reward_model.model_extra, "extra_info": more}
        beside = (self.model_extra or {}) | {key: value for key, value in rest.items() if value}
        return _Row.model_validate(beside | texts)


@dataclass(frozen=True)
class _Block:
    tag: str
    text: str


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one row: its history and its step."""
    prompted = isinstance(record, dict) and "prompt" in record
    row = _Prompted.model_validate(record).row() if prompted else _Row.model_validate(record)
    found = _INSTRUCTION.fullmatch(row.instruction)
    if found is None:
        raise RecordError("instruction: not a sentence, a list of tools and rules")
    if not row.input.startswith(_HISTORY):
        raise RecordError("input: no dialogue history")
    tools, names = _tools(found["tools"])
    blocks = [*_blocks(row.input.removeprefix(_HISTORY)), *_blocks(row.output)]
    messages = (SystemMessage(found["system"]), *_messages(blocks, names))
    notes = {"rules": found["rules"]} | (row.model_extra or {})
    return Trajectory(tools, messages, name, keep(NAMESPACE, notes))


def looks_like(record: Any) -> bool:
    """Whether it has a dialogue history and an output that thinks in tags."""
    if not isinstance(record, dict):
        return False
    history, output = record.get("input"), record.get("output")
    if "prompt" in record:
        history, output = _prompted_texts(record)
    return (
        isinstance(history, str)
        and history.startswith(_HISTORY)
        and isinstance(output, str)
        and output.lstrip().startswith("<think>")
    )


def _prompted_texts(record: dict[str, Any]) -> tuple[Any, Any]:
    """The history and the step of a row for reinforcement learning, if it is one."""
    prompt, reward = record["prompt"], record.get("reward_model")
    last = prompt[-1] if isinstance(prompt, list) and prompt else None
    history = last.get("content") if isinstance(last, dict) else None
    return history, reward.get("ground_truth") if isinstance(reward, dict) else None


# ---- turns --------------------------------------------------------------------------------------------------------


def _blocks(text: str) -> list[_Block]:
    blocks = []
    at = 0
    while at < len(text):
        found = _BLOCK.match(text, at)
        if found is None:
            if not text[at:].strip():
                break
            raise RecordError("text outside the blocks, or a block that isn't closed")
        blocks.append(_Block(found[1], found[2].strip()))
        at = found.end()
    return blocks


def _messages(blocks: Sequence[_Block], names: Mapping[str, str]) -> Iterator[Message]:
    made = 0
    waiting: tuple[ToolCall, ...] = ()
    at = 0
    while at < len(blocks):
        if blocks[at].tag == "user":
            if waiting:
                raise RecordError("a call has no observation")
            yield UserMessage(blocks[at].text)
            at += 1
        elif blocks[at].tag == "obs":
            yield from _observations(blocks[at].text, waiting)
            waiting = ()
            at += 1
        else:
            if waiting:
                raise RecordError("a call has no observation")
            turn = {}
            for tag in ("think", "tool_call", "response"):
                if at < len(blocks) and blocks[at].tag == tag:
                    turn[tag] = blocks[at].text
                    at += 1
            message = _turn(turn, made, names)
            made += len(message.tool_calls)
            waiting = message.tool_calls
            yield message


def _turn(texts: Mapping[str, str], made: int, names: Mapping[str, str]) -> AssistantMessage:
    rationale, response = texts.get("think"), texts.get("response")
    if "tool_call" not in texts:
        return AssistantMessage(rationale, content=response)
    lines = [line for line in texts["tool_call"].split("\n") if line.strip()]
    if not lines:
        raise RecordError("a block of calls is empty")
    calls = [read_call(line, f"call_{number}") for number, line in enumerate(lines, made + 1)]
    calls = tuple(replace(call, name=names.get(call.name, call.name)) for call in calls)
    said = [text for text in (rationale, response) if text is not None]
    return AssistantMessage("\n\n".join(said) if said else None, calls)


def _observations(text: str, calls: Sequence[ToolCall]) -> Iterator[ToolMessage]:
    """One observation a call; the block of several calls is a list with one result each."""
    if not calls:
        raise RecordError("an observation follows no call")
    if len(calls) == 1:
        yield ToolMessage(calls[0].id, text)
        return
    try:
        results = json.loads(text)
    except ValueError as error:
        raise RecordError("the observation of several calls is not JSON") from error
    if not isinstance(results, list) or len(results) != len(calls):
        raise RecordError("the observation of several calls is no list of as many results")
    for call, result in zip(calls, results, strict=True):
        yield ToolMessage(call.id, json_text(result))


# ---- tools --------------------------------------------------------------------------------------------------------


def _tools(text: str) -> tuple[tuple[Tool, ...], Mapping[str, str]]:
    """The tools (one that is listed twice, once), and the function name of each."""
    listed: dict[tuple[str, str, str], dict[str, Any]] = {}
    for block in _NEXT_TOOL.split(text):
        found = _TOOL.fullmatch(block)
        if found is None:
            raise RecordError("a tool is not a block of Name, Description and Parameters")
        listed[found[1], found[2], found[3]] = _parameters(found[3])
    originals = [name for name, _, _ in listed]
    if len(set(originals)) < len(originals):
        raise RecordError("two tools have the same name")
    names = function_names(originals)
    tools = tuple(
        Tool.of(
            names[name], description, _schema(parameters), keep(NAMESPACE, {"name": name, "parameters": parameters})
        )
        for (name, description, _), parameters in listed.items()
    )
    return tools, names


def _parameters(text: str) -> dict[str, Any]:
    try:
        parameters = json.loads(text)
    except ValueError as error:
        raise RecordError("a tool's parameters are not JSON") from error
    if not isinstance(parameters, dict) or not all(isinstance(one, dict) for one in parameters.values()):
        raise RecordError("a tool's parameters are no object of objects")
    return parameters


def _schema(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, parameter in parameters.items():
        schema = _type(parameter.get("type"))
        if isinstance(parameter.get("description"), str) and parameter["description"]:
            schema["description"] = parameter["description"]
        if parameter.get("default") not in ("", None):
            schema["default"] = parameter["default"]
        properties[name] = schema
    return {"type": "object", "properties": properties}


def _type(written: Any) -> dict[str, Any]:
    """``List[int], optional``, or a list of type names, as a JSON Schema; a type without a counterpart stays open."""
    if isinstance(written, str):
        return type_schema(written)
    words = [word for word in written if isinstance(word, str)] if isinstance(written, list) else []
    kinds: set[str] = {"null" if word == "null" else type_schema(word).get("type", "") for word in words}
    return {} if "" in kinds or not kinds else {"type": sorted(kinds)}


FORMAT = Format(
    "toolrl", "ToolRL's rows (JSON or Parquet): instruction, dialogue history, and one step in tags", read, looks_like
)
