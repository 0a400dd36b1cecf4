"""Conversations: several instructions over the same tools and in one world."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest

from alpha_umi.toolworld import load_catalogue, make_conversations, split_trajectories
from alpha_umi.toolworld.catalogue import READING
from alpha_umi.toolworld.splits import MAX_CHARACTERS, count_characters
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage
from alpha_umi.validation import check_call


@pytest.fixture(scope="module")
def conversations() -> list[Trajectory]:
    return list(make_conversations("train", 120, seed=5, tasks=4))


def asked(conversation: Trajectory) -> int:
    return sum(isinstance(message, UserMessage) for message in conversation.messages)


def test_a_conversation_opens_with_the_task_of_its_number(conversations: list[Trajectory]):
    for conversation, alone in zip(conversations, split_trajectories("train", 120, seed=5), strict=True):
        assert conversation.messages[: len(alone.messages)] == alone.messages
        assert conversation.tools == alone.tools


def test_one_instruction_is_the_task_itself():
    assert list(make_conversations("I2-Cat", 5, seed=1)) == list(split_trajectories("I2-Cat", 5, seed=1))


def test_the_same_seed_gives_the_same_conversations(conversations: list[Trajectory]):
    assert list(make_conversations("train", 3, seed=5, tasks=4)) == conversations[:3]
    assert next(iter(make_conversations("train", 1, seed=6, tasks=4))) != conversations[0]


def test_most_ask_several_things_and_none_more_than_was_wanted(conversations: list[Trajectory]):
    counts = Counter(map(asked, conversations))
    assert max(counts) == 4
    assert sum(counts[n] for n in (2, 3, 4)) > 80


def test_they_are_as_short_as_wanted(conversations: list[Trajectory]):
    assert all(count_characters(c) <= (2700 if asked(c) > 1 else MAX_CHARACTERS) for c in conversations)


def test_every_instruction_is_answered_or_declined_before_the_next(conversations: list[Trajectory]):
    for conversation in conversations:
        for before, after in pairwise(conversation.messages):
            if isinstance(after, UserMessage):
                assert isinstance(before, AssistantMessage)
                assert (before.content or before.refusal) and not before.tool_calls


def test_calls_fit_their_schemas_and_are_numbered_through(conversations: list[Trajectory]):
    for conversation in conversations:
        calls = [c for m in conversation.messages if isinstance(m, AssistantMessage) for c in m.tool_calls]
        assert [call.id for call in calls] == [f"call_{number}" for number in range(len(calls))]
        answered = [m.tool_call_id for m in conversation.messages if isinstance(m, ToolMessage)]
        assert answered == [call.id for call in calls]
        for call in calls:
            check_call(call, conversation.tools)  # raises where a call doesn't fit


def test_what_was_said_stays_true(conversations: list[Trajectory]):
    """A reading call made again, with nothing written in between, gives what it gave."""
    for conversation in conversations:
        seen: dict[tuple[str, str], str] = {}
        calls = {c.id: c for m in conversation.messages if isinstance(m, AssistantMessage) for c in m.tool_calls}
        for message in conversation.messages:
            if not isinstance(message, ToolMessage):
                continue
            call = calls[message.tool_call_id]
            if load_catalogue().apis[call.name].op not in READING:
                seen.clear()
            elif "error" not in json.loads(message.content):
                assert seen.setdefault((call.name, call.arguments), message.content) == message.content
