r"""ToolLLaMA's training data: ToolBench's chains as text.

A record is ``{"id": "Step 5: QUERY", "conversations": [{"from", "value"}]}``, one a step of a chain: everything before
the step, and the step last. ``from`` is

* ``system``: the search's prompt, the three words of the form added, and at its end ``Specifically, you have access to
  the following APIs:`` with the functions as a Python list (parsed, never evaluated), `Finish` last;
* ``user``: ``\n{instruction}\nBegin!\n``, later the search's hints;
* ``assistant``: ``\nThought: TEXT\nAction: NAME\nAction Input: JSON``, the text empty where there was no thought, and
  several thoughts, one after the other, where thoughts came without a call;
* ``function``: the observation.

A chain of n steps is n records; only the last of them ends in `Finish`, the others in a call without its observation.
All are read. An assistant turn in another form is a malformed call if a function turn follows it, else a thought.
What was read is written again as the same JSON value. Of another trajectory the whole chain is written, as one record,
under the search's prompt with its list of tools: the collections that the functions' descriptions name, as ToolBench's
do, or else the functions themselves, with the descriptions of their functions (those of collections are not at hand).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.call_texts import literal
from alpha_umi.data.format import Format
from alpha_umi.data.function_chains import (
    FINISH_FUNCTION,
    Turn,
    read_chain,
    read_functions,
    write_chain,
)
from alpha_umi.data.function_chains import NAMESPACE as CHAIN
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import Extra, Tool, Trajectory

NAMESPACE = "toolllama"

PROMPT = (
    "You are AutoGPT, you can use many tools(functions) to do the following task.\n"
    "First I will give you the task description, and your task start.\n"
    "At each step, you need to give your thought to analyze the status now and what to do next, with a function call "
    "to actually excute your step.\n"
    "After the call, you will get the call result, and you are now in a new state.\n"
    "Then you will analyze your status now, then decide what to do next...\n"
    "After many (Thought-call) pairs, you finally perform the task, then you can give your finial answer.\n"
    "Remember: \n"
    "1.the state change is irreversible, you can't go back to one of the former state, if you want to restart the "
    'task, say "I give up and restart".\n'
    "2.All the thought is short, at most in 5 sentence.\n"
    "3.You can do more then one trys, so if your plan is to continusly try some conditions, you can do one of the "
    "conditions per try.\n"
    "Let's Begin!\n"
    "Task description: You should use functions to help handle the real time user querys. Remember:\n"
    '1.ALWAYS call "Finish" function at the end of the task. And the final answer should contain enough information to '
    "show to the user,If you can't handle the task, or you find that function calls always fail(the function is not "
    "valid now), use function Finish->give_up_and_restart.\n"
    "2.Do not use origin tool names, use only subfunctions' names."
)
"""The search's prompt without its list of tools, for trajectories from elsewhere."""

_STEP = "with a function call to actually excute your step."
_FORM = f"{_STEP} Your output should follow this format:\nThought:\nAction\nAction Input:\n"
_TOOLS = "You have access of the following tools:\n"
_APIS = "Specifically, you have access to the following APIs: "
_OF_COLLECTION = re.compile(r'This is the subfunction for tool "([^"]+)", you can use this tool\.')
_DESCRIBED = "The description of this function is: "
_SAID = re.compile(r"\nThought: (.*)\nAction: ([^\n]*)\nAction Input: (.*)\Z", re.DOTALL)
_NAME = re.compile(r"^Action:[ \t]*([^\n]*)", re.MULTILINE)
_SPEAKERS = {"system", "user", "assistant", "function"}


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    speaker: Literal["system", "user", "assistant", "function"] = Field(alias="from")
    value: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    conversations: list[_Turn] = Field(min_length=1)


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    said = parsed.conversations
    if said[0].speaker != "system":
        raise RecordError("the conversation doesn't begin with a system turn")
    functions = _functions(said[0].value)
    turns = [_turn(said, at) for at in range(len(said))]
    system, messages = read_chain(turns)
    extra = {CHAIN: {"system": system}, NAMESPACE: dict(parsed.model_extra or {})}
    return Trajectory(read_functions(functions), messages, name, extra)


def looks_like(record: Any) -> bool:
    """Whether its first turn is the system's and lists the APIs, and all speakers are the format's own."""
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        return False
    first = turns[0].get("value")
    speakers = [turn.get("from") for turn in turns]
    if speakers[0] != "system" or not isinstance(first, str) or _APIS not in first:
        return False
    return all(isinstance(speaker, str) and speaker in _SPEAKERS for speaker in speakers)


def _functions(system: str) -> list[dict[str, Any]]:
    """The functions that the system turn lists."""
    _, found, text = system.rpartition(_APIS)
    if not found:
        raise RecordError("the system turn lists no APIs")
    functions = literal(text)
    if not isinstance(functions, list) or not all(isinstance(function, dict) for function in functions):
        raise RecordError("the system turn's APIs can't be read as a list of functions")
    return functions


def _turn(said: list[_Turn], at: int) -> Turn:
    turn = said[at]
    if turn.speaker != "assistant":
        return Turn(turn.speaker, turn.value)
    verbatim: Extra = {NAMESPACE: {"value": turn.value}}
    found = _SAID.fullmatch(turn.value)
    if found is not None:
        name = found[2].strip()
        return Turn("assistant", found[1] or None, (name, found[3]), extra={} if name == found[2] else verbatim)
    if at + 1 < len(said) and said[at + 1].speaker == "function":
        named = _NAME.search(turn.value)
        return Turn("assistant", None, (named[1].strip() if named else "", turn.value), extra=verbatim)
    return Turn("assistant", turn.value, extra=verbatim)


# ---- writing --------------------------------------------------------------------------------------------------------


def write(trajectory: Trajectory) -> dict[str, Any]:
    """The record of a trajectory: of a whole chain, its last step's.

    Raises:
        RecordError: A turn makes several calls or says nothing, or a system message is not the first.
    """
    turns = write_chain(trajectory)
    rest = trajectory.extra.get(NAMESPACE)
    if rest is None:  # not read from this format: the prompt is still the search's own, or there is none
        given = turns.pop(0).content if turns and turns[0].role == "system" else None
        turns.insert(0, Turn("system", _system(given, trajectory.tools)))
        rest = {"id": f"Step {len(turns) - 1}: {trajectory.instruction}"}
    return {**rest, "conversations": _conversation(turns)}


def _system(given: str | None, tools: Iterable[Tool]) -> str:
    """The system turn for a prompt of the search, or for the instructions of another trajectory."""
    prompt = given or PROMPT
    if _STEP not in prompt:
        prompt = f"{PROMPT}\n{given}"
    shown = tuple(tools)
    if _TOOLS not in prompt and shown:
        prompt = f"{prompt}\n{_TOOLS}{_tool_list(shown)}"
    functions = [*(tool.function for tool in shown), FINISH_FUNCTION]
    return f"{prompt.replace(_STEP, _FORM)}\n{_APIS}{functions}"


def _tool_list(tools: Iterable[Tool]) -> str:
    """One numbered line for each collection, every line ended."""
    collections: dict[str, list[str]] = {}
    for tool in tools:
        named = _OF_COLLECTION.match(tool.description)
        text = tool.description[named.end() :].removeprefix(_DESCRIBED).strip('" ') if named else tool.description
        collections.setdefault(named[1] if named else tool.name, []).append(" ".join(text.split()))
    lines = ((name, " ".join(filter(None, texts))) for name, texts in collections.items())
    return "".join(f"{number}.{name}: {text}\n" for number, (name, text) in enumerate(lines, 1))


def _conversation(turns: Iterable[Turn]) -> list[dict[str, str]]:
    said: list[dict[str, str]] = []
    after_thought = False
    for turn in turns:
        if turn.role != "assistant":
            said.append({"from": turn.role, "value": turn.content or ""})
            after_thought = False
            continue
        text = _assistant(turn, after_thought)
        if after_thought:
            said[-1]["value"] += text
        else:
            said.append({"from": "assistant", "value": text})
        after_thought = turn.call is None and NAMESPACE not in turn.extra
    return said


def _assistant(turn: Turn, after_thought: bool) -> str:
    if NAMESPACE in turn.extra:
        return turn.extra[NAMESPACE]["value"]
    if turn.call is None:
        return f"\nThought: {turn.content}"
    thought = "" if after_thought and turn.content is None else f"\nThought: {turn.content or ''}"
    return f"{thought}\nAction: {turn.call[0]}\nAction Input: {turn.call[1]}"


FORMAT = Format(
    "toolllama", "ToolLLaMA's `conversations`: Thought, Action, Action Input and Finish, a step a record",
    read, looks_like, write=write,
)  # fmt: skip
