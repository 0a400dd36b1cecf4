r"""FireAct (anchen1011/FireAct, Alpaca form): ReAct texts over one tool, web search.

A record is ``{"instruction", "input": "", "output"}``; the output is a text of ``Thought: …``, ``Action: search[…]`` or
``Action: finish[…]``, and ``Observation: …``, each from the start of a line to the next one.

* ``search`` is the one tool; what is in brackets is its query. The rationale is the thought before it.
* ``finish`` is the final answer and no call. The observation after it, ``Episode finished, reward = True``, is an
  artefact; the reward is kept in ``extra["fireact"]["reward"]`` (a few texts have two, then all).
* Lines before the first thought are the options of a multiple-choice question: they join the question.
* Many records finish without a search (chain-of-thought runs): they are trajectories without a call.
* A few Reflexion runs have an observation without an action; no call was recorded for it, so they are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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

NAMESPACE = "fireact"

SEARCH = Tool.of(
    "search",
    "Searches the web and returns a snippet of the best result.",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to search for."}},
        "required": ["query"],
    },
)
"""The one tool."""

_LINE = re.compile(r"^(Thought|Action|Observation):[ ]?", re.MULTILINE)
_ACTION = re.compile(r"(search|finish)\[(.*)\]\Z", re.DOTALL)
_FINISHED = re.compile(r"Episode finished, reward = (\S+)\Z")


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    instruction: str = Field(min_length=1)
    input: str = ""
    output: str


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    options, blocks = _blocks(parsed.output)
    question = "\n".join(part for part in (parsed.instruction, parsed.input, options) if part)
    rewards = _rewards(blocks)
    messages = (UserMessage(question), *_steps(blocks[: len(blocks) - len(rewards)]))
    notes = dict(parsed.model_extra or {})
    if rewards:
        notes["reward"] = rewards[0] if len(rewards) == 1 else rewards
    return Trajectory((SEARCH,), messages, name, keep(NAMESPACE, notes))


def looks_like(record: Any) -> bool:
    """Whether it is an Alpaca record whose output is ReAct text with searches, or with a finish."""
    if not isinstance(record, dict) or not isinstance(record.get("instruction"), str):
        return False
    output = record.get("output")
    return isinstance(output, str) and re.search(r"^Action: (?:search|finish)\[", output, re.MULTILINE) is not None


def _blocks(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first block, and the blocks: what they are and their text."""
    starts = list(_LINE.finditer(text))
    stops = [start.start() for start in starts] + [len(text)]
    blocks = [(start[1], text[start.end() : stop].strip()) for start, stop in zip(starts, stops[1:], strict=True)]
    return text[: stops[0]].strip(), blocks


def _rewards(blocks: Sequence[tuple[str, str]]) -> list[str]:
    """The rewards that the last observations tell."""
    rewards: list[str] = []
    for what, text in reversed(blocks):
        finished = _FINISHED.match(text)
        if what != "Observation" or finished is None:
            break
        rewards.insert(0, finished[1])
    return rewards


def _steps(blocks: Sequence[tuple[str, str]]) -> Iterator[Message]:
    thoughts: list[str] = []
    made = at = 0
    while at < len(blocks):
        what, text = blocks[at]
        at += 1
        if what == "Thought":
            thoughts.append(text)
            continue
        action = _ACTION.match(text) if what == "Action" else None
        if action is None:
            raise RecordError(
                "output: an action is neither search[...] nor finish[...]"
                if what == "Action"
                else "output: an observation follows no action"
            )
        rationale = "\n".join(thoughts) if thoughts else None
        thoughts = []
        if action[1] == "finish":
            if at < len(blocks):
                raise RecordError("output: it goes on after finish[...]")
            yield AssistantMessage(rationale, content=action[2])
            return
        if at == len(blocks) or blocks[at][0] != "Observation":
            raise RecordError("output: a search has no observation")
        made += 1
        call = ToolCall(f"call_{made}", SEARCH.name, json_text({"query": action[2]}))
        yield AssistantMessage(rationale, (call,))
        yield ToolMessage(call.id, blocks[at][1])
        at += 1
    raise RecordError("output: no finish[...]")


FORMAT = Format("fireact", "FireAct's ReAct texts (Alpaca form) with search[...] and finish[...]", read, looks_like)
