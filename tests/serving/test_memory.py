"""Conversations are found again from their messages, with the tokens that the models wrote."""

from __future__ import annotations

import json

import pytest

from alpha_umi.agent import Episode
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.serving.memory import Memory, fingerprints
from alpha_umi.tools.schema import SchemaSource
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolCall, ToolMessage, UserMessage
from alpha_umi.transcript import Renderer, Voice

TOOLS = (Tool.of("look", "", {"type": "object", "properties": {"key": {}}}),)
SOURCE = SchemaSource(TOOLS)
ASKED = UserMessage("What is a?")


class Engine(ScriptedEngine):
    """Notes what is shared."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__({}, renderer)
        self.forks: list[tuple[int, int, int]] = []

    def fork(self, parent: int, child: int, length: int) -> None:
        self.forks.append((parent, child, length))


@pytest.fixture
def engine(renderer: Renderer) -> Engine:
    return Engine(renderer)


def calls(*arguments: str) -> AssistantMessage:
    made = [ToolCall(f"client_{number}", "look", text) for number, text in enumerate(arguments)]
    return AssistantMessage(tool_calls=tuple(made))


def after_a_call(engine: Engine, memory: Memory, *arguments: str) -> Episode:
    """An episode that has handed out calls, and is kept."""
    episode = memory.resume(1, SOURCE, TOOLS, [ASKED])
    transcript = episode.open(engine.renderer)
    own = [ToolCall(f"call_{number}", "look", text) for number, text in enumerate(arguments)]
    said: tuple[tuple[Voice, str], ...] = (("planner", "I look.\nNext: Caller"), ("caller", "whatever it wrote"))
    for voice, text in said:
        transcript.append(engine.renderer.written(voice, engine.renderer.encode(text)), 1)
    episode.messages.append(AssistantMessage("I look.", tuple(own)))
    memory.keep(TOOLS, [ASKED], calls(*arguments), episode)
    return episode


def test_a_turn_goes_on_with_the_very_tokens(engine: Engine):
    memory = Memory(engine, 8, 10_000)
    before = after_a_call(engine, memory, '{"key": "a"}').transcript
    again = memory.resume(2, SOURCE, TOOLS, [ASKED, calls('{"key":"a"}'), ToolMessage("client_0", "b")])
    assert before is not None and again.transcript is not None
    assert again.transcript.ids[: len(before.ids)] == before.ids
    assert engine.renderer.show(again.transcript.ids[len(before.ids) :]) == "<|tool|>b<|end|>"
    assert again.messages[1] == AssistantMessage("I look.", (ToolCall("call_0", "look", '{"key": "a"}'),))
    assert engine.forks[-1][1:] == (2, len(before.ids))


def test_what_is_kept_is_not_written_into(engine: Engine):
    memory = Memory(engine, 8, 10_000)
    after_a_call(engine, memory, "{}")
    history: list[Message] = [ASKED, calls("{}"), ToolMessage("client_0", "b")]
    first, second = (memory.resume(session, SOURCE, TOOLS, history) for session in (2, 3))
    assert first.transcript is not None and second.transcript is not None
    first.transcript.ids.append(0)
    first.messages.append(ASKED)
    assert len(second.messages) == 3
    assert second.transcript.ids == first.transcript.ids[:-1]


def test_another_history_is_begun_anew_over_what_it_has_in_common(engine: Engine):
    memory = Memory(engine, 8, 10_000)
    after_a_call(engine, memory, "{}")
    other = memory.resume(2, SOURCE, TOOLS, [ASKED, calls('{"key": "z"}'), ToolMessage("client_0", "b")])
    assert other.transcript is None
    assert engine.forks[-1][1] == 2
    forks = len(engine.forks)
    memory.resume(3, SchemaSource(()), (), [ASKED])
    assert len(engine.forks) == forks


def test_those_used_least_recently_go_first(engine: Engine):
    memory = Memory(engine, 2, 10_000)
    for number in range(3):
        after_a_call(engine, memory, json.dumps({"key": number}))
        memory.resume(9, SOURCE, TOOLS, [ASKED, calls('{"key": 0}'), ToolMessage("client_0", "b")])
    assert len(memory) == 2
    assert len(engine.forgotten) == 1
    kept = [memory.resume(9, SOURCE, TOOLS, [ASKED, calls(json.dumps({"key": n})), ToolMessage("client_0", "b")])
            for n in range(3)]  # fmt: skip
    assert [episode.transcript is not None for episode in kept] == [True, False, True]


def test_tokens_are_bounded_too(engine: Engine):
    memory = Memory(engine, 100, 150)
    for number in range(10):
        after_a_call(engine, memory, json.dumps({"key": number}))
        assert memory.tokens <= 150
    assert 0 < len(memory) < 10
    assert len(engine.forgotten) == 10 - len(memory)
    assert memory._begins.keys() == {link for kept in memory._kept.values() for link in kept.chain}


def test_a_fingerprint_knows_what_is_said_and_not_how_it_is_spelt():
    def last(*messages: Message, tools: tuple[Tool, ...] = TOOLS) -> bytes:
        return list(fingerprints(tools, messages))[-1]

    same = calls('{"key": "a", "b": 1}')
    assert last(ASKED, same) == last(ASKED, AssistantMessage("why", calls('{"b":1,"key":"a"}').tool_calls))
    others = [
        last(ASKED),
        last(ASKED, calls("{")),
        last(ASKED, calls("{}", "{}")),
        last(UserMessage("x"), same),
        last(ASKED, same, tools=()),
        last(ASKED, AssistantMessage(content="")),
        last(ASKED, AssistantMessage(refusal="")),
        last(ASKED, same, ToolMessage("client_0", "b")),
        last(ASKED, AssistantMessage("x")),
    ]
    assert len({last(ASKED, same), *others}) == len(others) + 1
