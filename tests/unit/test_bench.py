"""Benchmarks: the shapes are what they claim to be, and a tiny measurement has every figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpha_umi.bench.episodes import script
from alpha_umi.bench.inference import PEERS as ways
from alpha_umi.bench.inference import InferenceBench, bench_inference
from alpha_umi.bench.shapes import SHAPES, for_role, made_up, read, read_by, step_by_step
from alpha_umi.bench.train import PEERS, TrainBench, bench_train
from alpha_umi.errors import DataError, UserError
from alpha_umi.run_directory import load_renderer
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.trajectory import write_jsonl
from alpha_umi.transcript import IGNORED, ROLES


@pytest.mark.parametrize(("name", "spans", "layout"), [("toolbench", 0.45, 5.1), ("long", 0.12, 10.0)])
def test_a_made_up_shape_has_the_proportions_it_claims(name: str, spans: float, layout: float):
    rows = made_up(SHAPES[name], 100, 4096)  # pyright: ignore[reportArgumentType]
    tokens = read_by(rows)
    assert sum(s.span_stop - s.span_start for row in rows for s in row.segments) / tokens == pytest.approx(
        spans, abs=0.03
    )
    steps = sum(read_by(step_by_step(row, role)) for row in rows for role in ROLES)
    assert steps / tokens == pytest.approx(layout, rel=0.1)


def test_a_roles_rows_have_its_spans_in_the_loss_and_nothing_else():
    (row,) = made_up(SHAPES["toolbench"], 1, 4096)
    for role in ROLES:
        whole, steps = for_role(row, role), step_by_step(row, role)
        assert whole is not None
        mine = [s for s in row.segments if s.kind == role]
        assert sum(label != IGNORED for label in whole.labels) == sum(s.span_stop - s.span_start for s in mine)
        assert [len(step.ids) for step in steps] == [s.span_stop for s in mine]
        assert all(step.labels[s.span_start] != IGNORED for step, s in zip(steps, mine, strict=True))


def test_trajectories_of_a_file_are_measured_as_they_are(tmp_path: Path):
    path = tmp_path / "some.jsonl"
    write_jsonl(path, [solve(task) for task in make_tasks("train", 12, seed=0)])
    renderer = load_renderer(None, 256)
    rows = read(path, renderer, 3, 1024)
    assert len(rows) == 3
    assert all({s.kind for s in row.segments} == set(ROLES) for row in rows)
    with pytest.raises(UserError, match="500 are needed"):
        read(path, renderer, 500, 1024)
    with pytest.raises(DataError, match="no trajectory with all three roles fits into 64 tokens"):
        read(path, renderer, 1, 64)


@pytest.mark.slow
def test_every_peer_is_measured_and_the_ratios_follow():
    pytest.importorskip("trl", reason="TRL is a peer of the benchmark; `make bench-setup` installs it")
    settings = TrainBench(transcripts=1, rounds=1, hidden=64, layers=1, intermediate=64, rank=2, threads=1)
    out = bench_train(settings, ["toolbench"])
    run = out["runs"]["toolbench"]
    assert set(run) == set(PEERS)
    assert all(run[peer]["min_s"] <= run[peer]["median_s"] <= run[peer]["max_s"] for peer in PEERS)
    ratios = out["ratios"]
    assert ratios["paper_layout_tokens_per_transcript_token"] > 4
    assert ratios["local_speedup_vs_paper_layout"] == pytest.approx(
        run["layout"]["median_s"] / run["ours"]["median_s"], rel=0.01
    )


@pytest.mark.parametrize("single", [False, True])
def test_an_episode_generates_what_its_transcript_has_whoever_speaks(single: bool):
    for row in made_up(SHAPES["toolbench"], 5, 4096):
        one = script(row, 1.0, single)
        spans = sum(s.span_stop - s.span_start for s in row.segments)
        assert sum(turn.new for turn in one.turns) == spans
        read = len(one.prompt) + sum(len(turn.after) for turn in one.turns)
        assert read + spans + len(row.segments) == len(row.ids)
        steps = sum(s.kind == "planner" for s in row.segments)
        assert [turn.voice for turn in one.turns].count("assistant") == (steps if single else 0)


@pytest.mark.slow
def test_every_way_of_running_episodes_is_measured_and_the_ratios_follow():
    settings = InferenceBench(
        episodes=3, rounds=1, scale=0.05, context=96, hidden=64, layers=1, intermediate=64, rank=2, threads=1
    )
    out = bench_inference(settings, ["long"])
    run, ratios = out["runs"]["long"], out["ratios"]
    assert set(run) == set(ways)
    assert run["ours"]["generated"] == run["single"]["generated"] == run["pipeline"]["generated"]
    assert 1 <= ratios["prefill_per_transcript_token_long"] < 1.5
    assert ratios["prefill_per_transcript_token_every_step_long"] > 5
    assert 0.5 < ratios["memory_vs_single_long"] < 1.5  # of a tiny model the process itself is the most
    assert ratios["episode_latency_vs_single_long"] == pytest.approx(
        run["ours"]["median_latency_s"] / run["single"]["median_latency_s"], rel=0.1
    )
    for key in ("pipeline", "one_at_a_time"):
        assert ratios[f"episode_throughput_vs_reference_{key}_long"] > 0


def test_without_trl_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="make bench-setup"):
        bench_train(TrainBench(), ["toolbench"])
