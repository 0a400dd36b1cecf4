"""From trajectories to batches: which rows a step sees, and whose words are in the loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.rationales import drop
from alpha_umi.errors import DataError, UserError
from alpha_umi.training.batch import GROUPS, Batch, Row, collate
from alpha_umi.training.recipe import DataRecipe
from alpha_umi.training.targets import Batches, Source, _cut, make_row, open_source
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage, write_jsonl
from alpha_umi.transcript import IGNORED, ROLES, Renderer, Role

TOOL = Tool.of("find", "Find a thing", {"type": "object", "properties": {"thing": {"type": "string"}}})


def asked(number: int, words: int = 1) -> Trajectory:
    """A trajectory whose number can be read off its tokens: one call, then the answer."""
    call = ToolCall("call_0", "find", f'{{"thing": "{number}"}}')
    return Trajectory(
        (TOOL,),
        (
            UserMessage(f"Find {number}, please. " + "now " * words),
            AssistantMessage("I look for it.", (call,)),
            ToolMessage("call_0", f'{{"found": {number}}}'),
            AssistantMessage("I have it.", content=f"It is {number}."),
        ),
        str(number),
    )


def source(trajectories: list[Trajectory]) -> Source:
    """As `open_source` makes one of a file, without the shuffling."""
    return Source(lambda index, easy: trajectories[index % len(trajectories)], "test", len(trajectories))


def batches(
    renderer: Renderer, data: list[Trajectory] | Source, voices: tuple[Role, ...] = ROLES, **more: object
) -> Batches:
    given = data if isinstance(data, Source) else source(data)
    return Batches(given, renderer, voices, **{"batch_tokens": 1024, "max_length": 512, **more})  # pyright: ignore


def same(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("ids", "select", "targets", "group", "weight")
    )


# ---- where trajectories come from


def test_toolworld_episodes_depend_on_the_seed_and_the_index_alone():
    one, other = open_source(DataRecipe(seed=1)), open_source(DataRecipe(seed=1))
    indices = [130, 0, 63, 64, 1]
    expected = {i: other.get(i, 0.0) for i in sorted(indices)}
    assert all(one.get(i, 0.0) == expected[i] for i in indices)
    assert len({one.get(i, 0.0).instruction for i in range(192)}) > 185
    assert open_source(DataRecipe(seed=2)).get(0, 0.0) != one.get(0, 0.0)


def test_easy_episodes_are_short():
    some = open_source(DataRecipe(easy=1.0))
    assert all(len(some.get(index, 1.0).tools) <= 2 for index in range(20))


def test_a_file_is_seen_whole_in_every_epoch_each_time_in_another_order(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", [asked(n) for n in range(10)])
    some = open_source(DataRecipe(source=str(tmp_path / "a.jsonl")))
    epochs = [[some.get(10 * epoch + place, 0.0).id for place in range(10)] for epoch in range(3)]
    assert all(sorted(epoch, key=lambda name: int(name or 0)) == [str(n) for n in range(10)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert some.size == 10


def test_the_fingerprint_names_contents_and_seed(tmp_path: Path):
    path = tmp_path / "a.jsonl"

    def fingerprint(numbers: range, seed: int = 0) -> str:
        write_jsonl(path, [asked(n) for n in numbers])
        return open_source(DataRecipe(source=str(path), seed=seed)).fingerprint

    assert fingerprint(range(3)) == fingerprint(range(3))
    assert len({fingerprint(range(3)), fingerprint(range(4)), fingerprint(range(3), seed=1)}) == 3


def test_a_file_without_a_trajectory_is_refused(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl: holds no trajectory"):
        open_source(DataRecipe(source=str(tmp_path / "a.jsonl")))
    with pytest.raises(DataError, match=r"b\.jsonl: no such file"):
        open_source(DataRecipe(source=str(tmp_path / "b.jsonl")))


# ---- batches


def test_a_batch_depends_on_its_step_alone(renderer: Renderer):
    toolworld = open_source(DataRecipe())
    steps = [0, 1, 15, 16, 33]
    straight = batches(renderer, toolworld, batch_tokens=2048, max_length=1024, rationale_dropout=0.3)
    expected = {step: straight(step) for step in steps}
    for step in [33, 0, 16, 15, 1, 0]:
        assert same(straight(step), expected[step]), "the same object, asked in another order"
    fresh = batches(renderer, toolworld, batch_tokens=2048, max_length=1024, rationale_dropout=0.3)
    assert same(fresh(33), expected[33])
    assert same(fresh(1), expected[1])


def test_another_seed_deals_in_another_order(renderer: Renderer):
    data = [asked(n, words=1 + 3 * n) for n in range(40)]
    one, other = batches(renderer, data, seed=0), batches(renderer, data, seed=1)
    assert any(not same(one(step), other(step)) for step in range(4))


def numbers(renderer: Renderer, some: Batches, steps: range) -> Counter[str]:
    """How often the steps saw each trajectory of `asked`."""
    seen: Counter[str] = Counter()
    for step in steps:
        for ids in some(step).ids:
            text = renderer.tokenizer.decode(ids.tolist())
            seen[text.split("Find ", 2)[-1].split(",")[0]] += 1
    return seen


@pytest.mark.parametrize("size", [7, 48, 100])
def test_every_trajectory_is_seen_equally_often(renderer: Renderer, size: int):
    some = batches(renderer, [asked(n, words=1 + n % 9) for n in range(size)], batch_tokens=640)
    steps = range(16 * 6)
    seen = numbers(renderer, some, steps)
    total = some.trajectories(len(steps))
    assert sum(seen.values()) == total
    assert set(seen) == {str(n) for n in range(size)}
    assert max(seen.values()) - min(seen.values()) <= 1


def test_a_batch_is_about_as_large_as_was_asked(renderer: Renderer):
    some = batches(renderer, open_source(DataRecipe()), batch_tokens=6144, max_length=1024)
    areas = [some(step).tokens for step in range(32)]
    assert sum(areas) / len(areas) == pytest.approx(6144, rel=0.15)
    assert max(areas) < 1.6 * 6144


def test_rows_that_lack_the_voice_do_not_shrink_the_batches(renderer: Renderer):
    """Where one trajectory in four is answered, the summarizer's batches have as many tokens as the others'."""
    data = [asked(n) if n % 4 == 0 else replace(asked(n), messages=asked(n).messages[:-1]) for n in range(64)]
    some = batches(renderer, data, ("summarizer",), batch_tokens=1024)
    areas = [some(step).tokens for step in range(32)]
    assert sum(areas) / len(areas) == pytest.approx(1024, rel=0.3)
    seen = numbers(renderer, some, range(32))
    assert set(seen) == {str(n) for n in range(0, 64, 4)}
    assert max(seen.values()) - min(seen.values()) <= 2


def test_one_answer_in_a_hundred_trajectories_is_found(renderer: Renderer):
    data = [replace(asked(n), messages=asked(n).messages[:-1]) for n in range(99)] + [asked(99)]
    some = batches(renderer, data, ("summarizer",), batch_tokens=256)
    assert set(numbers(renderer, some, range(4))) == {"99"}


def test_the_first_trajectory_can_be_another(renderer: Renderer):
    data = [asked(n) for n in range(200)]
    some = batches(renderer, data, first=100, batch_tokens=256)
    assert all(int(name) >= 100 for name in numbers(renderer, some, range(4)))


def test_a_number_of_trajectories_takes_the_steps_that_see_as_many(renderer: Renderer):
    data = [asked(n) for n in range(200)]
    some = batches(renderer, data, batch_tokens=256)
    steps = some.steps_for(120)
    assert len(numbers(renderer, some, range(steps))) == pytest.approx(some.trajectories(steps), abs=8)
    assert some.trajectories(steps) == pytest.approx(120, abs=8)


# ---- whose words are in the loss


@pytest.mark.parametrize("voices", [("planner",), ("caller",), ("summarizer",), ROLES])
def test_the_loss_is_on_the_wanted_voices_alone(
    renderer: Renderer, trajectories: list[Trajectory], voices: tuple[Role, ...]
):
    for trajectory in trajectories:
        transcript = renderer.render(trajectory)
        row = make_row(transcript, voices)
        wanted = [s for s in transcript.segments if s.kind in voices]
        if row is None:
            assert not wanted
            continue
        expected = {i: GROUPS.index(s.kind) for s in wanted for i in range(s.span_start, s.span_stop)}
        assert {i for i, label in enumerate(row.labels) if label != IGNORED} == set(expected)
        assert all(row.group[i] == group and row.labels[i] == row.ids[i] for i, group in expected.items())
        assert len(row.ids) == wanted[-1].span_stop, "what comes after the last loss token is not computed"


def test_a_batch_of_one_role_reports_that_role(renderer: Renderer):
    for role in ROLES:
        batch = batches(renderer, [asked(n) for n in range(5)], (role,))(0)
        assert set(batch.group.tolist()) == {GROUPS.index(role)}


def test_balanced_batches_weigh_every_voice_the_same(renderer: Renderer):
    batch = batches(renderer, [asked(n) for n in range(5)], balanced=True)(3)
    sums = [batch.weight[batch.group == GROUPS.index(role)].sum().item() for role in ROLES]
    assert sums == pytest.approx([1.0] * 3)
    plain = batches(renderer, [asked(n) for n in range(5)])(3)
    assert set(plain.weight.tolist()) == {1.0}
    assert torch.equal(plain.ids, batch.ids)


def test_data_without_a_word_of_a_role_is_a_mistake_of_the_user(renderer: Renderer):
    data = [replace(asked(n), messages=asked(n).messages[:1]) for n in range(3)]
    with pytest.raises(UserError, match="no trajectory of the data has a span of summarizer within 512 tokens"):
        batches(renderer, data, ("summarizer",))


def test_transcripts_that_are_all_too_long_are_a_mistake_of_the_user(renderer: Renderer):
    with pytest.raises(UserError, match="within 64 tokens; raise max_length"):
        batches(renderer, [asked(n, words=200) for n in range(3)], max_length=64)


def test_a_transcript_that_is_too_long_is_cut_between_segments(renderer: Renderer):
    one = asked(1)
    whole = renderer.render(one)
    shortest, longest = whole.segments[2].stop, len(whole.ids) - 1
    ends = {end + by for s in whole.segments for end in (s.span_start, s.stop) for by in (-1, 0, 1)}
    for length in (n for n in range(shortest, longest + 1) if n in ends or n % 8 == 0):
        some = batches(renderer, [one], max_length=length)
        last = max(s.span_stop for s in whole.segments if s.kind in ROLES and s.stop <= length)
        batch = some(0)
        assert batch.ids[0, :last].tolist() == whole.ids[:last]
        assert not batch.ids[0, last:].any()


def test_some_trajectories_come_without_their_rationales(renderer: Renderer):
    data = [asked(n) for n in range(100)]
    some = batches(renderer, data, rationale_dropout=0.3)
    texts = [renderer.tokenizer.decode(ids.tolist()) for step in range(16) for ids in some(step).ids]
    share = sum("I look for it." not in text for text in texts) / len(texts)
    assert 0.15 < share < 0.45
    assert all(("I look for it." in text) == ("I have it." in text) for text in texts), "all or none of a trajectory's"
    assert all("Next: Caller" in text for text in texts)


def test_a_planner_never_learns_to_leave_its_rationale_out(renderer: Renderer):
    some = batches(renderer, [asked(n) for n in range(100)], rationale_dropout=0.3)
    for step in range(16):
        batch = some(step)
        for ids, select in zip(batch.ids, batch.select, strict=True):
            if "I look for it." not in renderer.tokenizer.decode(ids.tolist()):
                learned = renderer.tokenizer.decode(ids[1:][select[:-1]].tolist())
                assert "Next:" not in learned and '"name"' in learned


def test_dropping_rationales_leaves_everything_else(renderer: Renderer):
    one = asked(1)
    thinking = AssistantMessage("Let me think.")
    one = replace(one, messages=(one.messages[0], thinking, *one.messages[1:]))
    bare = drop(one)
    assert bare.messages[1] == thinking, "a turn that decides nothing has nothing else"
    assert [m.decision for m in bare.messages if isinstance(m, AssistantMessage)] == [
        m.decision for m in one.messages if isinstance(m, AssistantMessage)
    ]
    assert all(m.reasoning_content is None for m in bare.messages[2:] if isinstance(m, AssistantMessage))
    assert (bare.tools, bare.id, bare.messages[0]) == (one.tools, one.id, one.messages[0])


# ---- cutting a window into batches


@given(st.lists(st.integers(2, 1024), min_size=1, max_size=120), st.integers(1, 24))
def test_a_window_is_cut_into_runs_none_of_which_is_empty(lengths: list[int], parts: int):
    rows = [Row([1] * length, [1] * length, [0] * length) for length in sorted(lengths)]
    cut = _cut(rows, parts)
    assert [row for part in cut for row in part] == rows
    assert all(cut)
    assert len(cut) == min(parts, len(rows))


@given(st.lists(st.integers(100, 300), min_size=160, max_size=300))
def test_the_runs_are_about_equally_large(lengths: list[int]):
    rows = [Row([1] * length, [1] * length, [0] * length) for length in sorted(lengths)]
    sizes = [sum(len(row.ids) for row in part) for part in _cut(rows, 16)]
    assert max(sizes) - min(sizes) <= 2 * 300


def test_collating_a_cut_window_never_fails():
    rows = [Row([1, 2], [IGNORED, 2], [0, 0]) for _ in range(17)]
    assert all(collate(part).targets.numel() for part in _cut(rows, 16))
