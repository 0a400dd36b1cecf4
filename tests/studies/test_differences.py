"""Crossed intervals, verdicts and win rates over results."""

from __future__ import annotations

import random

import pytest

from alpha_umi.studies.differences import difference, figure, verdict, win_rate
from alpha_umi.studies.relations import relations
from alpha_umi.studies.report import by_system, reproduction, tables, write_reproduction

SPLITS = ("I1-Inst",)


def result(system, seed, act_em, solved, calls=2.0, size="nano"):
    """A result with a step and an episode an instruction."""
    rows = [[f"t{n}", 0, "call", 1.0, value, 0.0, value, None] for n, value in enumerate(act_em)]
    rows += [[f"t{n}", -1, "single", value, calls, 50.0] for n, value in enumerate(solved)]
    cost = {"trajectories": 10, "tokens_forwarded": 100, "loss_tokens": 50, "flops": 1e9, "seconds": 2.0}
    return {
        "name": f"{system}-{size}-seed{seed}", "system": system, "size": size, "seed": seed, "about": "a system",
        "fingerprint": "f", "date": "2026-01-01", "seconds": {"all": 1.0},
        "training": {"stages": {"global": cost}, **cost},
        "outcomes": {"I1-Inst": rows}, "static": {"I1-Inst": {"act_em": 0.5}}, "live": {"I1-Inst": {"pass_rate": 0.5}},
    }  # fmt: skip


def test_a_difference_pairs_seeds_and_instructions():
    rng = random.Random(0)
    hard = [float(rng.random() < 0.5) for _ in range(60)]
    a = [result("single", seed, hard, hard) for seed in range(3)]
    b = [result("umi", seed, [1.0] * 60, hard) for seed in range(3)]
    found = difference(a, b, "act_em", SPLITS)
    assert found is not None
    assert found.difference == pytest.approx(1 - sum(hard) / 60)
    assert found.ci95[0] > 0 and (found.seeds, found.n, found.lower) == (3, 60, 0)
    assert verdict(found, "act_em") == "holds" and verdict(found, "hallu") == "does not hold"


def test_seeds_that_disagree_widen_the_interval():
    same, lucky = [0.5] * 40, [1.0] * 40
    a = [result("single", seed, same, same) for seed in range(3)]
    steady = difference(a, [result("umi", seed, [0.6] * 40, same) for seed in range(3)], "act_em", SPLITS)
    shaky = difference(
        a, [result("umi", seed, lucky if seed == 0 else [0.4] * 40, same) for seed in range(3)], "act_em", SPLITS
    )
    assert steady is not None and shaky is not None
    assert steady.ci95 == pytest.approx((0.1, 0.1))
    assert shaky.ci95[0] < 0 < shaky.ci95[1] and verdict(shaky, "act_em") == "undecided"


def test_only_seeds_that_both_have_are_compared():
    a = [result("single", seed, [0.0] * 5, [0.0] * 5) for seed in (0, 1)]
    b = [result("umi", seed, [1.0] * 5, [1.0] * 5) for seed in (1, 2)]
    found = difference(a, b, "pass_rate", SPLITS)
    assert found is not None and found.seeds == 1
    assert difference(a, [result("umi", 7, [1.0], [1.0])], "pass_rate", SPLITS) is None


def test_a_metric_that_scores_nothing_has_no_figure():
    assert figure([result("single", 0, [1.0], [1.0])], "rouge_l", SPLITS) is None
    assert figure([result("single", 0, [1.0], [1.0])], "act_em", ("I3-Inst",)) is None


def test_solved_beats_unsolved_then_fewer_calls_win():
    a = [result("single", 0, [1.0] * 4, [1.0, 1.0, 0.0, 0.0], calls=3.0)]
    b = [result("umi", 0, [1.0] * 4, [1.0, 0.0, 1.0, 0.0], calls=2.0)]
    assert win_rate(a, b, SPLITS) == {"win": 0.5, "loss": 0.25, "tie": 0.25, "n": 4}


def test_relations_are_of_systems_that_are_both_there():
    results = [result("single", 0, [0.0] * 9, [0.0] * 9), result("umi", 0, [1.0] * 9, [1.0] * 9)]
    found = relations(by_system(results))
    assert {(one.better, one.worse) for one in found} == {("umi", "single")}
    assert {one.metric for one in found} == {"plan_acc", "act_em", "arg_f1", "hallu", "pass_rate"}
    assert next(one.verdict for one in found if one.metric == "pass_rate") == "holds"


def test_the_report_is_written_in_three_forms_with_plots(tmp_path):
    results = [result("single", 0, [0.0] * 9, [0.0] * 9), result("umi", 0, [1.0] * 9, [1.0] * 9)]
    report = reproduction(results, {"scale": "nano", "seeds": 1, "command": "umi reproduce"})
    assert [table.title for table in tables(report)][:2] == ["In domain, %", "Out of domain, %"]
    write_reproduction(tmp_path, "reproduce-nano", report, results)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "reproduce-nano.json", "reproduce-nano.md", "reproduce-nano.html", "reproduce-nano-forest.png",
    }  # fmt: skip
    text = (tmp_path / "reproduce-nano.md").read_text(encoding="utf-8")
    assert "umi > single" in text and "holds" in text and "58.9" in text
    assert "data:image/png;base64," in (tmp_path / "reproduce-nano.html").read_text(encoding="utf-8")
