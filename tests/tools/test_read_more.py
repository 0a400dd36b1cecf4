"""What was cut from a reply can be read on, in windows of a bounded size, as long as the run lasts."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.tools import Approval, ApprovalPolicy, CombinedSource
from alpha_umi.tools.base import reversible_tools
from alpha_umi.tools.execution import Observation, execute
from alpha_umi.tools.read_more import KeepingSource, keeping
from alpha_umi.tools.text import Budget
from alpha_umi.trajectory import Tool, ToolCall
from alpha_umi.transcript import Renderer
from tests.tokenizers import nano

TOOL = Tool.of("say", "", {"type": "object", "properties": {"text": {"type": "string"}}})
MARK = re.compile(r'\[\.\.\. cut here; read_more\(id="(\w+)", start=(\d+)\) reads on \.\.\.\]')
WINDOW = re.compile(r"(.*)\n\[\.\.\. characters (\d+) to (\d+) of (\d+); (.*) \.\.\.\]\Z", re.DOTALL)


class Says:
    tools = (TOOL,)
    writes = frozenset({"say"})

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return arguments["text"]


def ask(source: KeepingSource, name: str, **arguments: Any) -> Observation:
    prepared = ToolCall("call_0", name, json.dumps(arguments))
    return asyncio.run(execute(source, prepared, timeout=5, approval=Approval(ApprovalPolicy.NEVER)))


def whole(source: KeepingSource, text: str) -> str:
    """A reply, read to its end."""
    first = ask(source, "say", text=text).text
    mark = MARK.search(first)
    if mark is None:
        return first
    read, key = first[: mark.start() - 1], mark[1]
    while True:
        window = WINDOW.match(ask(source, "read_more", id=key, start=len(read)).text)
        assert window is not None
        assert int(window[2]) == len(read)
        read += window[1]
        assert (int(window[3]), int(window[4])) == (len(read), len(text))
        if window[5] == "the end":
            return read


def test_a_short_reply_is_left_as_it_is() -> None:
    with keeping(Says(), Budget(10)) as source:
        assert ask(source, "say", text="0123456789") == Observation("0123456789")


def test_a_long_reply_says_how_to_read_on_and_a_window_says_where_it_ends() -> None:
    with keeping(Says(), Budget(10)) as source:
        text = "".join(str(digit) * 10 for digit in range(10))
        first = ask(source, "say", text=text).text
        mark = MARK.search(first)
        assert mark is not None
        assert (first[: mark.start()], first[mark.end() :], mark[2]) == ("00000\n", "\n99999", "5")
        assert ask(source, "read_more", id=mark[1], start=45).text == (
            "4444455555\n[... characters 45 to 55 of 100; start=55 reads on ...]"
        )
        assert (
            ask(source, "read_more", id=mark[1], start=95).text
            == "99999\n[... characters 95 to 100 of 100; the end ...]"
        )
        assert ask(source, "read_more", id=mark[1], start=10**9).text.startswith("\n[... characters 100 to 100")


@given(st.text(st.characters(exclude_categories=("C",)), max_size=200), st.integers(1, 20))
def test_windows_of_bytes_put_together_are_the_reply(text: str, limit: int) -> None:
    with keeping(Says(), Budget(limit)) as source:
        assert whole(source, text) == text


@given(st.text(st.sampled_from("aé 東\n<|end|>🎉"), max_size=120), st.integers(1, 20))
def test_windows_of_tokens_put_together_are_the_reply(text: str, limit: int) -> None:
    renderer = Renderer(nano())
    budget = Budget(limit, renderer.encode, renderer.decode)
    with keeping(Says(), budget) as source:
        assert whole(source, text) == text
        cut = budget.cut(text)
        assert cut is None or len(renderer.encode(cut.head)) + len(renderer.encode(cut.tail)) <= limit + 2


def test_ids_are_made_of_the_reply_and_of_nothing_else() -> None:
    replies = []
    for texts in (["a" * 50, "b" * 50], ["b" * 50, "a" * 50, "b" * 50]):
        with keeping(Says(), Budget(10)) as source:
            replies.append({ask(source, "say", text=text).text for text in texts})
    assert replies[0] == replies[1]


@pytest.mark.parametrize("key", ["", "nothing", "../../etc/passwd", "/etc/passwd"])
def test_what_is_not_kept_cannot_be_read(key: str) -> None:
    with keeping(Says(), Budget(10)) as source:
        ask(source, "say", text="x" * 50)
        observation = ask(source, "read_more", id=key, start=0)
        assert observation.error == "unknown_reply"
        assert "kept are " in observation.text


def test_a_wrong_start_is_told() -> None:
    with keeping(Says(), Budget(10)) as source:
        assert ask(source, "read_more", id="x", start=-1).error == "invalid_arguments"


def test_secrets_are_not_on_the_disk_and_nothing_is_left_after_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-value")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with keeping(Says(), Budget(10)) as source:
        ask(source, "say", text="canary-value" * 10)
        (kept,) = (file for file in tmp_path.rglob("*") if file.is_file())
        assert kept.read_text() == "[masked]" * 10
        assert kept.parent.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_replies_go_when_there_are_too_many() -> None:
    with keeping(Says(), Budget(10), kept_bytes=100) as source:
        marks = [MARK.search(ask(source, "say", text=letter * 50).text) for letter in "abc"]
        keys = [mark[1] for mark in marks if mark is not None]
        assert [ask(source, "read_more", id=key, start=0).error for key in keys] == ["unknown_reply", None, None]


def test_the_sources_tools_stay_what_they_are_and_a_taken_name_is_avoided() -> None:
    class Taken(Says):
        tools = (TOOL, Tool('{"name": "read_more"}'))

    with keeping(CombinedSource([Taken()]), Budget(10)) as source:
        assert [tool.name for tool in source.tools] == ["say", "read_more", "read_more_2"]
        assert (source.writes, source.client, source.in_order) == ({"say"}, set(), set())
        assert reversible_tools(source) == set()
        text = ask(source, "say", text="x" * 50).text
        assert 'read_more_2(id="' in text
