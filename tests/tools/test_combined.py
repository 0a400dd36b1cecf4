"""Several sources side by side: unique names, calls that find their way, everything closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import ToolError
from alpha_umi.tools import CombinedSource, ToolWorldSource
from alpha_umi.toolworld.open_world import OpenWorld
from alpha_umi.trajectory import Tool


class Named:
    """Tools of some names; a call says which source it has reached, and under which name."""

    def __init__(self, label: str, *names: str) -> None:
        self.label = label
        self.tools = tuple(Tool(f'{{"description": "é", "name": "{name}"}}') for name in names)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return f"{self.label}.{name}{arguments}"


class Marked(Named):
    def __init__(self, label: str, *names: str, fails: bool = False) -> None:
        super().__init__(label, *names)
        self.writes = frozenset(names[:1])
        self.client = frozenset(names[1:2])
        self.in_order = frozenset(names[2:])
        self.fails = fails
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True
        if self.fails:
            raise OSError("can't be closed")


def names(source: CombinedSource) -> list[str]:
    return [tool.name for tool in source.tools]


def call(source: CombinedSource, name: str) -> str:
    return asyncio.run(source.call(name, {"x": 1}))


def test_tools_keep_their_order_and_calls_reach_their_source() -> None:
    source = CombinedSource([Named("a", "two", "one"), Named("b", "three")])
    assert names(source) == ["two", "one", "three"]
    assert call(source, "one") == "a.one{'x': 1}"
    assert call(source, "three") == "b.three{'x': 1}"


def test_a_name_that_is_taken_gets_a_number_and_nothing_else_of_the_schema_changes() -> None:
    source = CombinedSource([Named("a", "f", "f_2"), Named("b", "f", "f"), Named("c", "f")])
    assert names(source) == ["f", "f_2", "f_3", "f_4", "f_5"]
    assert source.tools[2].schema == '{"description": "é", "name": "f_3"}'
    assert [call(source, name)[:3] for name in names(source)] == ["a.f", "a.f", "b.f", "b.f", "c.f"]


@given(st.lists(st.lists(st.sampled_from(["f", "f_2", "f_3", "g" * 64, "g" * 62 + "_2"]), max_size=5), max_size=5))
def test_names_are_unique_and_short_whatever_the_sources_have(lists: list[list[str]]) -> None:
    source = CombinedSource([Named(str(number), *own) for number, own in enumerate(lists)])
    found = names(source)
    assert len(set(found)) == len(found) == sum(map(len, lists))
    assert all(len(name) <= 64 for name in found)
    for name, (number, own) in zip(found, [(n, own) for n, each in enumerate(lists) for own in each], strict=True):
        assert call(source, name) == f"{number}.{own}{{'x': 1}}"


def test_what_sources_say_of_their_tools_is_said_under_the_new_names() -> None:
    source = CombinedSource([Marked("a", "w", "c", "o"), Named("b", "w", "c", "o"), Marked("c", "w", "c", "o", "p")])
    assert source.writes == {"w", "w_3"}
    assert source.client == {"c", "c_3"}
    assert source.in_order == {"o", "o_3", "p"}


def test_what_sources_leave_out_is_all_there_with_the_reasons() -> None:
    first, second = Named("a", "f"), Named("b", "g")
    first.left_out = {"GET /x": "no reason"}  # pyright: ignore[reportAttributeAccessIssue]
    second.left_out = {"GET /x": "another", "GET /y": "a third"}  # pyright: ignore[reportAttributeAccessIssue]
    source = CombinedSource([first, Named("c", "h"), second])
    assert source.left_out == {"GET /x": "no reason", "GET /x (2)": "another", "GET /y": "a third"}


def test_a_list_of_tools_that_changes_is_followed() -> None:
    first, second = Named("a", "one"), Marked("b", "one", "two")
    source = CombinedSource([first, second])
    assert names(source) == ["one", "one_2", "two"]
    first.tools = (*first.tools, *Named("", "new").tools)
    second.tools = second.tools[:1]
    assert names(source) == ["one", "new", "one_2"]
    assert source.writes == {"one_2"}
    assert call(source, "new") == "a.new{'x': 1}"
    with pytest.raises(ToolError, match="'two' is no longer offered"):
        call(source, "two")


def test_all_sources_are_closed_even_if_one_of_them_fails() -> None:
    sources = [Marked("a", "f"), Marked("b", "g", fails=True), Marked("c", "h")]
    with pytest.raises(OSError, match="can't be closed"):
        asyncio.run(CombinedSource([*sources[:2], Named("d", "i"), sources[2]]).aclose())
    assert [source.closed for source in sources] == [True, True, True]


def test_the_tools_of_a_world_stay_in_order() -> None:
    world = OpenWorld("What is the price of the hotel Bobru?")
    source = CombinedSource([Named("a", "f"), ToolWorldSource(world)])
    assert source.in_order == {tool.name for tool in world.tools}
    assert source.tools[1:] == world.tools


def test_nothing_is_a_source_too() -> None:
    source = CombinedSource([])
    assert (source.tools, source.writes) == ((), frozenset())
    asyncio.run(source.aclose())
