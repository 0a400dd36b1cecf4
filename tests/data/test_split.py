"""Splits: groups stay whole, the choice depends on seed and keys only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import split_by
from alpha_umi.data.split import by_category, by_extra, by_instruction, by_tool_set
from alpha_umi.errors import UserError
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, Trajectory, UserMessage


def about(text: str, *tools: str, name: str | None = None) -> Trajectory:
    return Trajectory(tuple(Tool.of(tool, "", {}) for tool in tools), (UserMessage(text),), name, {"set": {"n": text}})


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=60).filter(lambda groups: len(set(groups)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_no_group_is_on_both_sides_and_nothing_is_lost(groups: list[int], share: float, seed: int) -> None:
    items = [about(f"question {group}", name=str(number)) for number, group in enumerate(groups)]
    train, test = split_by(items, "instruction", share, seed)
    assert not {t.instruction for t in train} & {t.instruction for t in test}
    assert sorted(train + test, key=lambda t: int(t.id or 0)) == items
    assert train and test
    smallest = min(groups.count(group) for group in groups)
    assert len(test) <= max(share * len(items), smallest)


def test_the_same_seed_holds_out_the_same_groups_in_whatever_order_they_come() -> None:
    items = [about(f"question {number % 20}", name=str(number)) for number in range(60)]
    held_out = [{t.instruction for t in split_by(order, "instruction", 0.3, 1)[1]} for order in (items, items[::-1])]
    assert held_out[0] == held_out[1]
    assert {t.instruction for t in split_by(items, "instruction", 0.3, 2)[1]} != held_out[0]


def test_case_and_spacing_make_no_other_instruction() -> None:
    assert by_instruction(about("Find  it,\nplease")) == by_instruction(about("find it, please"))


def test_the_order_of_the_tools_makes_no_other_tool_set() -> None:
    assert by_tool_set(about("a", "x", "y")) == by_tool_set(about("b", "y", "x")) != by_tool_set(about("a", "x"))


def test_an_extra_is_found_by_its_path_and_missed_with_a_sentence() -> None:
    assert by_extra("set.n")(about("a")) == "a"
    with pytest.raises(UserError, match=r"trajectory '7' has no 'set\.m' in its extra"):
        by_extra("set.m")(about("a", name="7"))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        split_by([about("a"), about("b")], "instruction", share)


def test_a_single_group_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"2 trajectories in 1 group\(s\)"):
        split_by([about("a"), about("A")], "instruction", 0.5)


def test_real_sequences_are_held_out_whole(published: dict[str, list[Trajectory]]) -> None:
    train, test = split_by(published["sequential"], "traject-bench.sequence_name", 0.1)
    names = [{t.extra["traject-bench"]["sequence_name"] for t in side} for side in (train, test)]
    assert not names[0] & names[1]
    assert len(train) + len(test) == 1470
    assert 0.08 * 1470 < len(test) <= 147


def calling(*tools: str, name: str = "") -> Trajectory:
    calls = tuple(ToolCall(f"c{n}", tool, "{}") for n, tool in enumerate(tools))
    return Trajectory((), (UserMessage("x"), AssistantMessage(tool_calls=calls)), name)


@given(st.lists(st.lists(st.integers(0, 25), max_size=3), min_size=4, max_size=40), st.integers(0, 3))
def test_no_tool_is_called_on_both_sides(tools: list[list[int]], seed: int) -> None:
    items = [calling(*map(str, dict.fromkeys(used)), name=str(number)) for number, used in enumerate(tools)]
    try:
        train, test = split_by(items, "tool", 0.3, seed)
    except UserError:
        return  # all of them are linked

    def called(side: list[Trajectory]) -> set[str]:
        return {c.name for t in side for m in t.messages if isinstance(m, AssistantMessage) for c in m.tool_calls}

    assert not called(train) & called(test)
    assert len(train) + len(test) == len(items)


def test_a_category_is_found_in_whatever_namespace_it_stands() -> None:
    items = [Trajectory((), (UserMessage(str(n)),), None, {"some-set": {"domain": "ab"[n % 2]}}) for n in range(10)]
    train, test = split_by(items, "category", 0.5)
    assert len({by_category(t) for t in train}) == len({by_category(t) for t in test}) == 1
    with pytest.raises(UserError, match="no category or domain"):
        by_category(about("a"))
