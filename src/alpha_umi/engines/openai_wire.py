"""A conversation as any chat API takes it, and its reply as a turn of ours.

Servers differ in what they refuse: names beyond letters, digits, ``_`` and ``-``, arguments that are no JSON object,
fields they don't know. So what is sent is put into what all of them take: such names are replaced (and put back in the
reply), unreadable arguments go into an object as a text, call ids are ``call_0`` and on, a rationale is content beside
the calls. The record itself stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alpha_umi.data.openai_messages import NAMESPACE, OPENAI, ChatMessage, read_messages, write_messages
from alpha_umi.engines.openai_config import RationaleAs
from alpha_umi.tools.names import legal_name, unique_name
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolCall, ToolMessage, json_text
from alpha_umi.transcript import unmarked

FILTERED = "The provider's content filter withheld the answer."
"""What the user is told where a content filter has left nothing else."""

_REASONING = ("reasoning_content", "reasoning", "thinking")
_GIVE_UP = re.compile(r"\s*Give up:\s*")


class Names:
    """What tools are called where names are restricted.

    Args:
        tools: Those that can be called.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._legal: dict[str, str] = {}
        self._own: dict[str, str] = {}
        # names that are legal as they are stay what they are, whatever comes before them
        for name in sorted((tool.name for tool in tools), key=lambda name: legal_name(name, "tool") != name):
            self.legal(name)

    def legal(self, name: str) -> str:
        """What a tool is called there."""
        if name not in self._legal:
            made = unique_name(legal_name(name, "tool"), self._own)
            self._legal[name], self._own[made] = made, name
        return self._legal[name]

    def own(self, name: str) -> str:
        """Which tool is called so there; a name that nobody has stays what it is."""
        return self._own.get(name, name)


def wire_tools(tools: Sequence[Tool], names: Names) -> list[dict[str, Any]]:
    """The tools, for the ``tools`` of a request; of one name the first."""
    named: dict[str, Tool] = {}
    for tool in tools:
        named.setdefault(tool.name, tool)
    return [
        {"type": "function", "function": {**tool.function, "name": names.legal(name), "parameters": tool.parameters}}
        for name, tool in named.items()
    ]


def wire_messages(messages: Sequence[Message], names: Names, rationale: RationaleAs) -> list[dict[str, Any]]:
    """The messages of a request."""
    return write_messages(_Portable(names, rationale).all(messages), OPENAI)


class _Portable:
    """Makes messages what every server takes."""

    def __init__(self, names: Names, rationale: RationaleAs) -> None:
        self._names, self._rationale = names, rationale
        self._made = 0
        self._ids: dict[str, str] = {}

    def all(self, messages: Sequence[Message]) -> list[Message]:
        return [self._one(message) for message in messages]

    def _one(self, message: Message) -> Message:
        if isinstance(message, AssistantMessage):
            return self._turn(message)
        if isinstance(message, ToolMessage):
            return ToolMessage(self._ids[message.tool_call_id], message.content)
        return replace(message, extra={})

    def _turn(self, turn: AssistantMessage) -> AssistantMessage:
        text = turn.reasoning_content or ""
        kept = text if text.strip() and self._rationale == "reasoning_content" else None
        if not turn.tool_calls:
            said = turn.refusal if turn.content is None else turn.content
            return AssistantMessage(kept, content=text if said is None else said)
        self._ids = {}
        calls = tuple(map(self._call, turn.tool_calls))
        if not text.strip() or self._rationale != "content":
            return AssistantMessage(kept, calls)
        return AssistantMessage(text, calls, extra={NAMESPACE: {"rationale": {"content": [0, len(text)]}}})

    def _call(self, call: ToolCall) -> ToolCall:
        made = self._ids[call.id] = f"call_{self._made}"
        self._made += 1
        arguments = call.arguments if call.parsed() is not None else json_text({"unreadable": call.arguments})
        return ToolCall(made, self._names.legal(call.name), arguments)


def read_turn(choice: Mapping[str, Any], names: Names) -> AssistantMessage:
    """What a reply's first choice says. Never raises, whatever is in it.

    A content filter that left nothing makes it a refusal, and so does a content that begins with ``Give up:``. A reply
    without calls, content or refusal decides nothing. Arguments are kept as they were written.
    """
    message = choice.get("message")
    raw: Mapping[str, Any] = message if isinstance(message, Mapping) else {}
    calls = _calls(raw, names)
    content, refusal = _text(raw.get("content")), _text(raw.get("refusal"))
    if not calls and content is None and refusal is None and choice.get("finish_reason") == "content_filter":
        refusal = FILTERED
    found = _GIVE_UP.match(content or "")
    if not calls and content is not None and found is not None:
        content, refusal = None, content[found.end() :]
    record: dict[str, Any] = {"role": "assistant", "content": content}
    record |= {key: text for key in _REASONING if (text := _text(raw.get(key))) is not None}
    if calls:
        record["tool_calls"] = calls
    elif content is None and refusal is not None:
        record["refusal"] = refusal
    (turn,) = read_messages([record], [ChatMessage.model_validate(record)], OPENAI)
    assert isinstance(turn, AssistantMessage)
    return turn


def _calls(raw: Mapping[str, Any], names: Names) -> list[dict[str, Any]]:
    given = raw.get("tool_calls")
    listed = given if isinstance(given, list) else []
    if isinstance(raw.get("function_call"), Mapping):
        listed = [*listed, {"function": raw["function_call"]}]
    functions = [one.get("function") if isinstance(one, Mapping) else None for one in listed]
    return [
        {"id": f"call_{number}", "type": "function", "function": _function(function, names)}
        for number, function in enumerate(functions)
    ]


def _function(raw: Any, names: Names) -> dict[str, Any]:
    """A call; arguments that some servers give as an object, or not at all, become text."""
    function = raw if isinstance(raw, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = "{}"
    return {
        "name": names.own(name) if isinstance(name, str) else "",
        "arguments": arguments if isinstance(arguments, str) else json_text(arguments),
    }


def _text(value: Any) -> str | None:
    """A text that says something; of a list of parts, what their texts say together."""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, Mapping)]
        value = "".join(part for part in parts if isinstance(part, str))
    return value if isinstance(value, str) and value.strip() else None


def readable(turn: AssistantMessage) -> AssistantMessage:
    """The turn so that its text (`alpha_umi.transcript.single_text`) reads back as what it is.

    A line of the rationale that opens like a decision is indented. Calls that are marked as malformed lose the mark,
    so that their name is written too.
    """
    rationale = turn.reasoning_content
    calls = tuple(replace(call, malformed=False) for call in turn.tool_calls)
    return replace(turn, reasoning_content=unmarked(rationale) if rationale else None, tool_calls=calls)
