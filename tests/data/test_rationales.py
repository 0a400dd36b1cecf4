"""Rationales of converted data: kept, dropped, or written by rule."""

from __future__ import annotations

import pytest

from alpha_umi.data.rationales import rationales
from alpha_umi.errors import UserError
from alpha_umi.trajectory import AssistantMessage, ToolCall, ToolMessage, Trajectory, UserMessage

BARE = Trajectory((), (
    UserMessage("Compare them."),
    AssistantMessage(tool_calls=(ToolCall("a", "find", '{"q": "shoes", "n": 2}'), ToolCall("b", "list", "{}"))),
    ToolMessage("a", "1"),
    ToolMessage("b", "2"),
    AssistantMessage("Some thought."),
    AssistantMessage(content="Done."),
    UserMessage("And now?"),
    AssistantMessage("I know why.", refusal="No."),
    UserMessage("Please!"),
    AssistantMessage(refusal="No."),
))  # fmt: skip


def said(trajectory: Trajectory) -> list[str | None]:
    return [m.reasoning_content for m in trajectory.messages if isinstance(m, AssistantMessage)]


def test_missing_rationales_are_written_from_the_call_and_what_came_before_it():
    assert said(rationales("rule")(BARE)) == [
        'The next step is to call find with q "shoes" and n 2 and list.',
        "Some thought.",
        "find and list answered. Nothing more is needed: the user can be answered.",
        "I know why.",
        "The tools at hand can't solve this.",
    ]


def test_rationales_are_kept_or_dropped():
    assert rationales("keep")(BARE) is BARE
    assert said(rationales("drop")(BARE)) == [None, "Some thought.", None, None, None]


def test_any_other_treatment_is_refused():
    with pytest.raises(UserError, match="keep, drop, rule"):
        rationales("invent")
