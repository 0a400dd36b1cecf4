"""The exact tokens of conversations, found again from their messages.

The protocol is stateless: every request brings the whole conversation. Rendered anew it would lack what clients drop
(the rationales, calls that failed and were made again), and would not be the tokens the models wrote. So after each
turn the episode is kept under a fingerprint of the messages that the client will send back; a longer conversation that
begins with them goes on from there. One that was made elsewhere, or was forgotten, is rendered from its messages; what
its tokens have in common with a conversation that is kept still need not be computed again.

A fingerprint is a chain of hashes: of the tools, then of each message without rationale, ids and names, a call's
arguments as JSON whatever their spelling.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from alpha_umi.agent import Episode
from alpha_umi.data.openai_messages import NAMESPACE
from alpha_umi.engines.base import Engine
from alpha_umi.tools import ToolSource
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolCall, ToolMessage
from alpha_umi.transcript import Transcript


def fingerprints(tools: Sequence[Tool], messages: Sequence[Message]) -> Iterator[bytes]:
    """One of the tools alone, and one more after each message."""
    link = hashlib.sha256("\n".join(tool.schema for tool in tools).encode()).digest()
    yield link
    for message in messages:
        text = json.dumps(_normal(message))
        link = hashlib.sha256(link + text.encode()).digest()
        yield link


def _normal(message: Message) -> list[object]:
    if not isinstance(message, AssistantMessage):
        return [message.role, message.content]
    calls = [_normal_call(call) for call in message.tool_calls]
    return [message.role, calls, message.content, message.refusal, _beside(message)]


def _normal_call(call: ToolCall) -> list[object]:
    arguments = call.parsed()
    spelt = call.arguments if arguments is None else json.dumps(arguments, sort_keys=True)
    return [call.name, spelt]


def _beside(message: AssistantMessage) -> str | None:
    """What was said beside a call, which the record counts as rationale."""
    span = message.extra.get(NAMESPACE, {}).get("rationale", {}).get("content")
    return None if span is None else (message.reasoning_content or "")[span[0] : span[1]]


@dataclass(frozen=True)
class _Kept:
    episode: Episode
    tokens: int
    chain: tuple[bytes, ...]


class Memory:
    """Episodes that may go on, those used least recently dropped first.

    It belongs to the thread that owns the engine. A request never writes into what is kept: it goes on in a copy, over
    a fork of the engine's session.

    Args:
        engine: Keeps what it has computed for a session.
        entries: How many episodes are kept,
        tokens: and how many tokens they may have together.
    """

    def __init__(self, engine: Engine, entries: int, tokens: int) -> None:
        self._engine, self._entries, self._most = engine, entries, tokens
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._begins: dict[bytes, bytes] = {}
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._kept)

    def resume(self, session: int, source: ToolSource, tools: Sequence[Tool], messages: Sequence[Message]) -> Episode:
        """The episode of a conversation, in this session: gone on with if it is known, else new."""
        chain = list(fingerprints(tools, messages))
        for known in range(len(messages), 0, -1):
            kept = self._kept.get(chain[known])
            if kept is None:
                continue
            episode = _copied(kept.episode, session, source)
            if self._go_on(episode, messages[known:]):
                self._kept.move_to_end(chain[known])
                self._share(chain[known], session)
                return episode
        alike = next((self._begins[link] for link in reversed(chain) if link in self._begins), None)
        if alike is not None:
            self._share(alike, session)
        return Episode(session, source, list(messages), tuple(tools))

    def _share(self, name: bytes, session: int) -> None:
        """Lets a session begin with what the engine has of a conversation that is kept, as far as they are the same."""
        kept = self._kept[name]
        self._engine.fork(kept.episode.session, session, kept.tokens)

    def _go_on(self, episode: Episode, messages: Sequence[Message]) -> bool:
        """Appends what came after the turn that is kept; says whether that fits it."""
        calls = episode.client_calls
        replies = [message.content for message in messages[: len(calls)] if isinstance(message, ToolMessage)]
        if len(replies) < len(calls):
            return False
        if calls:
            episode.observe({call.id: text for call, text in zip(calls, replies, strict=True)})
        assert episode.transcript is not None
        for message in messages[len(calls) :]:
            episode.messages.append(message)
            for piece in self._engine.renderer.message(message):
                episode.transcript.append(piece, len(episode.messages) - 1)
        return True

    def keep(
        self, tools: Sequence[Tool], messages: Sequence[Message], turn: AssistantMessage, episode: Episode
    ) -> None:
        """Keeps an episode whose client has these messages and this turn; its session may be used for another then."""
        if self._entries == 0 or episode.transcript is None or len(episode.transcript.ids) > self._most:
            return
        chain = tuple(fingerprints(tools, (*messages, turn)))
        name = chain[-1]
        self._drop(name)
        tokens = len(episode.transcript.ids)
        kept = _copied(episode, secrets.randbits(62), episode.source)
        self._engine.fork(episode.session, kept.session, tokens)
        self._kept[name] = _Kept(kept, tokens, chain)
        self._begins.update(dict.fromkeys(chain, name))
        self.tokens += tokens
        while len(self._kept) > self._entries or self.tokens > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: bytes) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            self.tokens -= kept.tokens
            for link in kept.chain:
                if self._begins.get(link) == name:
                    del self._begins[link]
            self._engine.forget([kept.episode.session])


def _copied(episode: Episode, session: int, source: ToolSource) -> Episode:
    transcript = episode.transcript or Transcript()
    return replace(
        episode, session=session, source=source, messages=list(episode.messages),
        transcript=Transcript(list(transcript.ids), list(transcript.segments)),
    )  # fmt: skip
