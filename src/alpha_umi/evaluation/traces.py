"""A trajectory as Markdown for people: every turn with the role that wrote it, nothing interpreted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alpha_umi.trajectory import AssistantMessage, Decision, ToolCall, Trajectory

# Longer texts are cut in the middle: this is for reading, the record is in the trajectory.
MAX_CHARACTERS = 1200


def trace_markdown(trajectory: Trajectory) -> str:
    """The turns of a trajectory, one headed block each."""
    return "\n\n".join(f"**{role}**\n\n{fenced(text)}" for role, text in _turns(trajectory))


def fenced(text: str, limit: int = MAX_CHARACTERS) -> str:
    """A Markdown code block that no content can end: its fence is longer than any run of backticks inside."""
    text = shortened(text, limit)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def shortened(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Head and tail of a text of more than ``limit`` characters, with the cut marked."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def _turns(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    for message in trajectory.messages:
        if isinstance(message, AssistantMessage):
            yield from _assistant_turns(message)
        else:
            yield message.role, message.content


def _assistant_turns(message: AssistantMessage) -> Iterator[tuple[str, str]]:
    decision = message.decision
    said = f"Next: {decision}" if decision is not None else "(no decision)"
    yield "planner", "\n".join(part for part in (message.reasoning_content, said) if part)
    if decision is Decision.CALL:
        yield "caller", "\n".join(map(_call, message.tool_calls))
    elif message.content is not None:
        yield "summarizer", message.content
    elif message.refusal:
        yield "told the user", message.refusal


def _call(call: ToolCall) -> str:
    return f"(malformed) {call.arguments}" if call.malformed else f"{call.name} {call.arguments}"
