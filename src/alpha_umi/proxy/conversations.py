"""Which recorded exchanges are one conversation: each request carries the history again, so the last one has it all.

A *reply* is one usable choice of one exchange. It goes on with another if the request's history up to one of its
assistant messages is that other conversation, reply included. Replies that none goes on with are where conversations
end. Only digests and places in the files are kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpha_umi.data.records import RecordError
from alpha_umi.proxy.records import Record, instructions, state_after, states

_CUT = {
    "length": "the reply was cut (finish_reason: length)",
    "content_filter": "the provider's filter cut the reply (finish_reason: content_filter)",
}
_SAYS = ("content", "refusal", "tool_calls", "function_call")


@dataclass(frozen=True)
class Place:
    """Where a record is: a file, the byte its line begins at, its number from 0."""

    file: Path
    offset: int
    index: int


@dataclass(frozen=True)
class Reply:
    """A usable choice of an exchange.

    Attributes:
        place: Of the record.
        choice: Which of the response's choices, from 0.
        time: When the exchange began.
        history: Digests of the request's conversation, after each message that is no instruction.
        end: The digest after the reply.
        instructions: Digest of the system messages.
    """

    place: Place
    choice: int
    time: float
    history: tuple[bytes, ...]
    end: bytes
    instructions: bytes


def replies(record: Record, place: Place) -> Iterator[Reply | RecordError]:
    """What each choice of a record's response is: a reply, or why it is none."""
    if record.problem is not None:
        yield RecordError(record.problem)
        return
    choices = record.response.get("choices") if isinstance(record.response, dict) else None
    if not isinstance(choices, list) or not choices:
        yield RecordError("the response has no choices")
        return
    messages = record.request["messages"]
    history = tuple(state for _, state in states(messages))
    told = instructions(messages)
    for number, choice in enumerate(choices):
        try:
            end = state_after(history[-1] if history else b"", message_of(choice))
        except RecordError as error:
            yield error
        else:
            yield Reply(place, number, record.time, history, end, told)


def message_of(choice: Any) -> dict[str, Any]:
    """The message of a choice, without what says nothing.

    Raises:
        RecordError: It is cut, or empty.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise RecordError("a choice has no message")
    if choice.get("finish_reason") in _CUT:
        raise RecordError(_CUT[choice["finish_reason"]])
    if not any(message.get(key) for key in _SAYS):
        raise RecordError("the reply is empty")
    return tidied(message)


def tidied(message: Mapping[str, Any]) -> dict[str, Any]:
    """An assistant's message without fields that are null or empty lists, and without its content if it refuses."""
    kept = {key: value for key, value in message.items() if key == "content" or value not in (None, [])}
    if message.get("refusal") and not kept.get("tool_calls"):
        kept["content"] = None
    return kept | {"role": "assistant"}


def chains(found: Iterable[Reply]) -> Iterator[tuple[Reply, ...]]:
    """The conversations, in the order in which they ended: the replies of each, from the first to the last.

    Where several replies could be the one before, it is one under the same instructions, and of these the latest.
    """
    ordered = sorted(found, key=lambda reply: reply.time)
    ends: dict[bytes, list[int]] = {}
    before: list[int | None] = []
    for number, reply in enumerate(ordered):
        before.append(_before(reply, ordered, ends))
        ends.setdefault(reply.end, []).append(number)
    inner = set(before)
    for number in range(len(ordered)):
        if number not in inner:
            yield tuple(_back(number, ordered, before))[::-1]


def _before(reply: Reply, ordered: list[Reply], ends: Mapping[bytes, list[int]]) -> int | None:
    for state in reversed(reply.history):
        earlier = [one for one in ends.get(state, ()) if ordered[one].place != reply.place]
        if earlier:
            return max(earlier, key=lambda one: (ordered[one].instructions == reply.instructions, one))
    return None


def _back(number: int | None, ordered: list[Reply], before: list[int | None]) -> Iterator[Reply]:
    while number is not None:
        yield ordered[number]
        number = before[number]
