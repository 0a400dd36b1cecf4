r"""ToolBench's chains: messages with one `function_call` a turn, and a `Finish` call where others end in text.

`Finish` takes ``{"return_type": "give_answer", "final_answer": ...}`` or ``{"return_type": "give_up_and_restart"}``.
Where nothing answers it, it is the answer or the refusal of the record and no tool call; where a function message does
(the search refused it and went on), it is a call like any other.

The system message is the search's prompt (it tells the model about `Finish`), so it is kept in
``extra["toolbench"]["system"]``; every trajectory made of a chain has that key, None where the chain has no prompt.
The instruction is wrapped as ``\n{instruction}\nBegin!\n``; later user messages are the search's hints. An assistant
message without a call is a thought that decided nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Extra,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "toolbench"

GIVE_UP_TEXT = "I give up: I could not solve this with the tools at hand."
"""What the user is told where the planner gives up and the source records no words for the user."""

NO_ANSWER = "none"
"""The answer of a `Finish` call that holds none, as the reference code writes it."""

FINISH = "Finish"

FINISH_FUNCTION: dict[str, Any] = {
    "name": FINISH,
    "description": "If you think you get the result which can answer the task, call this function to give the final "
    "answer. Or, if you think you can't handle the task from this status, call this function to restart. Remember: you "
    "should ALWAYS call this function at the end of your try, and the final answer is the ONLY part that will be "
    "showed to user, so final answer should contain enough information.",
    "parameters": {
        "type": "object",
        "properties": {
            "return_type": {"type": "string", "enum": ["give_answer", "give_up_and_restart"]},
            "final_answer": {
                "type": "string",
                "description": "The final answer you want to give the user. You should have this field if "
                '"return_type"=="give_answer"',
            },
        },
        "required": ["return_type"],
    },
}
"""The `Finish` function as ToolBench declares it, last in every list of functions."""

_GIVE_UP = "give_up_and_restart"
_WRAPPED = re.compile(r"\n(.*)\nBegin!\n", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One message of a chain.

    Attributes:
        role: Who says it.
        content: What it says; of an assistant its thought, None if it wrote none.
        call: The name and the arguments' text of an assistant's call.
        name: The function that a function message says it is from; None where the source doesn't say.
        extra: Namespaced data of the source.
    """

    role: Literal["system", "user", "assistant", "function"]
    content: str | None
    call: tuple[str, str] | None = None
    name: str | None = None
    extra: Extra = field(default_factory=dict)


# ---- from a chain to the record's messages --------------------------------------------------------------------------


def read_chain(turns: Sequence[Turn]) -> tuple[str | None, tuple[Message, ...]]:
    """The prompt of a chain and its messages; the last call may be without its observation.

    Raises:
        RecordError: The turns don't fit together.
    """
    system = turns[0].content if turns and turns[0].role == "system" else None
    messages: list[Message] = []
    waiting: ToolCall | None = None
    calls = 0
    asked = False
    for at, turn in enumerate(turns):
        if turn.role == "system":
            if at > 0 or turn.extra:
                raise RecordError("a system message is not the first, or has more than its content")
        elif turn.role == "function":
            if waiting is None:
                raise RecordError("a function message answers no call")
            other = {"name": turn.name} if turn.name not in (None, waiting.name) else {}
            messages.append(ToolMessage(waiting.id, turn.content or "", _extra(turn.extra, other)))
            waiting = None
        elif waiting is not None:
            raise RecordError("a call has no function message")
        elif turn.role == "user":
            messages.append(_user(turn, first=not asked))
            asked = True
        elif turn.call is not None and (turn.call[0] != FINISH or _is_answered(turns, at)):
            calls += 1
            waiting = _call(turn.call, f"call_{calls}")
            messages.append(AssistantMessage(turn.content, (waiting,), extra=turn.extra))
        else:
            messages.append(_thought_or_end(turn))
    return system, tuple(messages)


def _extra(extra: Extra, more: Mapping[str, Any]) -> Extra:
    """``extra`` with more in this module's namespace."""
    return {**extra, NAMESPACE: {**extra.get(NAMESPACE, {}), **more}} if more else extra


def _is_answered(turns: Sequence[Turn], at: int) -> bool:
    return at + 1 < len(turns) and turns[at + 1].role == "function"


def _user(turn: Turn, first: bool) -> UserMessage:
    content = turn.content or ""
    wrapped = _WRAPPED.fullmatch(content) if first else None
    if wrapped is not None:
        return UserMessage(wrapped[1], turn.extra)
    return UserMessage(content, _extra(turn.extra, {"bare": True} if first else {}))


def _call(call: tuple[str, str], call_id: str) -> ToolCall:
    name, arguments = call
    read = ToolCall(call_id, name, arguments)
    return read if name and read.parsed() is not None else ToolCall(call_id, name, arguments, malformed=True)


def _thought_or_end(turn: Turn) -> AssistantMessage:
    if turn.call is None:
        if turn.content is None:
            raise RecordError("an assistant message has neither content nor a call")
        return AssistantMessage(turn.content, extra=turn.extra)
    arguments = turn.call[1]
    gave_up, words = finish(arguments, turn.content)
    extra = _extra(turn.extra, {} if arguments == _finish_arguments(gave_up, words) else {"finish": arguments})
    if gave_up:
        return AssistantMessage(turn.content, refusal=words, extra=extra)
    return AssistantMessage(turn.content, content=words, extra=extra)


def as_end(message: AssistantMessage) -> AssistantMessage:
    """A turn that calls `Finish` as the end that it meant, without ``extra``; another turn as it is."""
    if not message.tool_calls or message.tool_calls[0].name != FINISH:
        return message
    gave_up, words = finish(message.tool_calls[0].arguments, message.reasoning_content)
    if gave_up:
        return AssistantMessage(message.reasoning_content, refusal=words)
    return AssistantMessage(message.reasoning_content, content=words)


def finish(arguments: str, thought: str | None) -> tuple[bool, str]:
    """Whether a `Finish` call gives up, and its words for the user.

    Arguments that are not JSON are read as the reference code reads them: by the words they hold, an answer without its
    closing quote and brace included; failing that, the thought is the answer.
    """
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "return_type" in value:
        words = value.get("final_answer")
        if value["return_type"] == _GIVE_UP:
            return True, words if isinstance(words, str) and words else GIVE_UP_TEXT
        if "final_answer" not in value:
            return False, NO_ANSWER
        return False, words if isinstance(words, str) else json_text(words)
    if _GIVE_UP in arguments:
        return True, GIVE_UP_TEXT
    _, found, rest = arguments.partition('"final_answer": ')
    if found:
        return False, rest.strip().strip("}").strip('"')
    return False, NO_ANSWER if thought is None else thought


def _finish_arguments(gave_up: bool, words: str) -> str:
    """The arguments as ChatGPT usually writes them."""
    value = {"return_type": _GIVE_UP if gave_up else "give_answer"}
    if not gave_up or words != GIVE_UP_TEXT:
        value["final_answer"] = words
    return json.dumps(value, ensure_ascii=False, indent=2)


def response(observation: str) -> str:
    """The ``response`` of ToolBench's ``{"error", "response"}``, which is all that the paper's data keeps of it.

    Of an observation that was cut and is no JSON any more, or that is a text in JSON: what follows ``"response":``.
    Empty if there is none.
    """
    try:
        value = json.loads(observation)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "response" in value:
        return value["response"] if isinstance(value["response"], str) else json_text(value["response"])
    return (value if isinstance(value, str) else observation).partition('"response":')[2]


# ---- from the record's messages to a chain --------------------------------------------------------------------------


def write_chain(trajectory: Trajectory) -> list[Turn]:
    """The chain that a trajectory was made of, or would be.

    Raises:
        RecordError: A turn makes several calls or says nothing, or a system message is not the first.
    """
    system = trajectory.extra.get(NAMESPACE, {}).get("system")
    turns = [] if system is None else [Turn("system", system)]
    names: dict[str, str] = {}
    asked = False
    for message in trajectory.messages:
        if isinstance(message, SystemMessage):
            if turns:
                raise RecordError("a system message is not the first")
            turns.append(Turn("system", message.content))
        elif isinstance(message, UserMessage):
            bare = asked or "bare" in message.extra.get(NAMESPACE, {})
            turns.append(Turn("user", message.content if bare else wrap(message.content), extra=message.extra))
            asked = True
        elif isinstance(message, ToolMessage):
            name = message.extra.get(NAMESPACE, {}).get("name", names[message.tool_call_id])
            turns.append(Turn("function", message.content, name=name, extra=message.extra))
        else:
            names = {call.id: call.name for call in message.tool_calls}
            turns.append(Turn("assistant", message.reasoning_content, _written_call(message), extra=message.extra))
    return turns


def wrap(instruction: str) -> str:
    """The first user message of a chain."""
    return f"\n{instruction}\nBegin!\n"


def _written_call(message: AssistantMessage) -> tuple[str, str] | None:
    if len(message.tool_calls) > 1:
        raise RecordError("a turn makes several calls")
    if message.tool_calls:
        return message.tool_calls[0].name, message.tool_calls[0].arguments
    words = message.content if message.refusal is None else message.refusal
    if words is None:
        if message.reasoning_content is None:
            raise RecordError("an assistant turn says nothing")
        return None
    usual = _finish_arguments(message.refusal is not None, words)
    return FINISH, message.extra.get(NAMESPACE, {}).get("finish", usual)


# ---- chains as JSON -------------------------------------------------------------------------------------------------


class _Said(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    def more(self) -> Extra:
        """Fields that a message has beyond the known ones, such as ``valid``."""
        return {NAMESPACE: {"fields": self.model_extra}} if self.model_extra else {}


class _FunctionCall(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    arguments: str


class _Text(_Said):
    role: Literal["system", "user"]
    content: str

    def turn(self) -> Turn:
        return Turn(self.role, self.content, extra=self.more())


class _Assistant(_Said):
    role: Literal["assistant"]
    content: str | None
    function_call: _FunctionCall = Field(default=_FunctionCall(name="", arguments=""))

    def turn(self) -> Turn:
        call = (self.function_call.name, self.function_call.arguments)
        given = "function_call" in self.model_fields_set
        return Turn(self.role, self.content, call if given else None, extra=self.more())


class _Function(_Said):
    role: Literal["function"]
    name: str
    content: str

    def turn(self) -> Turn:
        return Turn(self.role, self.content, name=self.name, extra=self.more())


def _kind(message: Any) -> str | None:
    role = message.get("role") if isinstance(message, dict) else None
    kinds = {"system": "text", "user": "text", "assistant": "assistant", "function": "function"}
    return kinds.get(role) if isinstance(role, str) else None


ChainMessage = Annotated[
    Annotated[_Text, Tag("text")] | Annotated[_Assistant, Tag("assistant")] | Annotated[_Function, Tag("function")],
    Discriminator(
        _kind,
        custom_error_type="role",
        custom_error_message="a message of a chain needs the 'role' system, user, assistant or function",
    ),
]
"""A message of a chain in JSON; which one is told by ``role``."""


def turns_of(messages: Iterable[_Text | _Assistant | _Function]) -> list[Turn]:
    """The turns of a chain that was read from JSON."""
    return [message.turn() for message in messages]


def turn_json(turn: Turn) -> dict[str, Any]:
    """A turn as a JSON message, its fields beyond the known ones included."""
    out: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.role == "function":
        out["name"] = turn.name
    if turn.call is not None:
        out["function_call"] = {"name": turn.call[0], "arguments": turn.call[1]}
    return out | turn.extra.get(NAMESPACE, {}).get("fields", {})


# ---- functions ------------------------------------------------------------------------------------------------------


def read_functions(functions: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """The tools among the functions of a chain: all but `Finish`, each schema as it is.

    Raises:
        RecordError: A function has no name, or parameters that are no object.
    """
    try:
        return tuple(Tool(json_text(function)) for function in functions if function.get("name") != FINISH)
    except ValueError as error:
        raise RecordError("a function has no name, or parameters that are no object") from error
