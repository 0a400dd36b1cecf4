"""A chat model in the part of one role.

It is given an instruction with the tools' schemas, and the conversation as text: what the role wrote itself, in earlier
turns or in examples, is the assistant's, everything else the user's, each part headed by who said it::

    system      You are the caller of an agent ... # Tools ...
    user        [user] What's on at the Odeon?
                [planner] I need the programme. Next: Caller
    assistant   {"name": "programme", "arguments": {"cinema": "Odeon"}}
    user        [tool] ...
                [planner] ...

So any chat model can play any role, whether or not its server knows of tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from alpha_umi.engines.base import Conversation
from alpha_umi.engines.openai_wire import FILTERED
from alpha_umi.trajectory import AssistantMessage, Decision, Message, SystemMessage, ToolCall, Trajectory, json_text
from alpha_umi.transcript import Kind, Role, Voice, caller_text, planner_text, single_text

INSTRUCTIONS: dict[Role, str] = {
    "planner": (
        "You are the planner of an agent that does what the user asks with the tools below. Say in one or two "
        "sentences what is known and what is to be done next. Then write, on a last line of its own, one of\n"
        "Next: Caller\n(a tool has to be called; the caller writes the call)\n"
        "Next: Summarizer\n(all that is needed is known; the summarizer writes the answer)\n"
        "Next: Give up\n(it can't be done with these tools)\n"
        "Write neither calls nor the answer."
    ),
    "caller": (
        "You are the caller of an agent. The planner has said what is to be done next: write the call of a tool that "
        'does it, as one JSON object on one line, {"name": "...", "arguments": {...}}, and nothing else. Calls that '
        "don't depend on each other may follow on lines of their own."
    ),
    "summarizer": (
        "You are the summarizer of an agent. Everything that is needed has been found out: write the answer for the "
        "user from what the tools gave, and nothing else."
    ),
}
_NEXT = re.compile(r"\n?[ \t*_>#-]*Next:[ \t*_]*(caller|summarizer|give up)\b.*", re.IGNORECASE | re.DOTALL)
_DECISIONS = {decision.value.lower(): decision for decision in Decision}
_FENCE = re.compile(r"\A\s*```[a-z]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_DECODER = json.JSONDecoder()


def role_messages(
    role: Role, so_far: Conversation, shots: Sequence[Trajectory] = (), instruction: str | None = None
) -> list[dict[str, str]]:
    """The messages that a role is prompted with."""
    given = so_far.messages[0].content if so_far.messages and isinstance(so_far.messages[0], SystemMessage) else ""
    tools = "\n".join(["# Tools", *(tool.schema for tool in so_far.tools)]) if so_far.tools else ""
    head = "\n\n".join(filter(None, [instruction or INSTRUCTIONS[role], given, tools]))
    out = [{"role": "system", "content": head}]
    said = [part for shot in shots for part in _said(shot.messages)]
    said += _said(so_far.messages)
    if so_far.planner_text is not None:
        said.append(("planner", so_far.planner_text))
    for kind, text in said:
        speaker = "assistant" if kind == role else "user"
        shown = text if kind == role else f"[{kind}] {text}"
        if out[-1]["role"] == speaker:
            out[-1]["content"] += "\n\n" + shown
        else:
            out.append({"role": speaker, "content": shown})
    return out


def _said(messages: Sequence[Message]) -> Iterator[tuple[Kind, str]]:
    """Who said what, the system left out."""
    for message in messages:
        if not isinstance(message, AssistantMessage):
            if not isinstance(message, SystemMessage):
                yield message.role, message.content
            continue
        yield "planner", planner_text(message)
        if message.tool_calls:
            yield "caller", caller_text(message.tool_calls)
        elif message.content is not None:
            yield "summarizer", message.content


def role_text(role: Role, content: str) -> str:
    """What a role's reply says, in the words of our transcript.

    A planner's text ends with its first decision, however that is decorated; without one it stays as it is. A caller's
    calls are taken out of code fences and lists; what is no call stays as it is.
    """
    if role == "summarizer":
        return content.strip()
    if role == "caller":
        return _calls(content)
    found = _NEXT.search(content)
    if found is None:
        return content.strip()
    decision = _DECISIONS[found[1].lower()]
    return f"{content[: found.start()].strip()}\nNext: {decision.value}".lstrip("\n")


def _calls(content: str) -> str:
    fenced = _FENCE.match(content)
    text = (fenced[1] if fenced else content).strip()
    values: list[object] = []
    at = 0
    try:
        while at < len(text):
            value, at = _DECODER.raw_decode(text, at)
            values += value if isinstance(value, list) else [value]
            while at < len(text) and text[at] in " \t\r\n,;":
                at += 1
    except (ValueError, RecursionError):
        return text
    calls = [call for number, value in enumerate(values) if (call := _call(value, number)) is not None]
    return caller_text(calls) if calls and len(calls) == len(values) else text


def _call(value: object, number: int) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return ToolCall(f"call_{number}", value["name"], json_text(arguments)) if isinstance(arguments, dict) else None


def filtered_text(voice: Voice) -> str:
    """What a voice says where a content filter let it say nothing: it gives up, or calls nothing."""
    if voice == "planner":
        return f"{FILTERED}\nNext: {Decision.GIVE_UP.value}"
    if voice == "assistant":
        return single_text(AssistantMessage(refusal=FILTERED))
    return FILTERED
