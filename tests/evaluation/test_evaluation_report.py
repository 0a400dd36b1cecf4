"""The report: its files, its keys, what it says about a comparison, and the training logs it reads."""

from __future__ import annotations

import copy
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alpha_umi.errors import DataError
from alpha_umi.evaluation.plots import live_plot, loss_plot, static_plot
from alpha_umi.evaluation.report import report_markdown, rich_tables, write_report
from alpha_umi.evaluation.tables import all_tables, percent
from alpha_umi.evaluation.training_log import read_losses

SPLITS = ("I1-Inst", "I1-Tool", "I1-Cat", "I2-Inst", "I2-Cat", "I3-Inst")
SYSTEMS = ("umi", "single-multitask")
PNG = b"\x89PNG\r\n\x1a\n"


def test_all_files_are_written_with_the_documented_keys(
    tmp_path: Path, report: dict[str, Any], write_logs: Callable[[int], dict[str, Path]]
) -> None:
    out = tmp_path / "run"
    write_report(out, report, write_logs(60))
    assert {path.name for path in out.iterdir()} == {"report.json", "report.md", "static.png", "live.png", "loss.png"}
    for image in out.glob("*.png"):
        assert image.read_bytes().startswith(PNG)
    written = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert written == report
    assert {"seconds", "tokens"} <= set(written)
    for system in SYSTEMS:
        for split in SPLITS:
            static, live = written["systems"][system]["static"][split], written["systems"][system]["live"][split]
            assert {"plan_acc", "act_em", "hallu", "arg_f1", "rouge_l"} <= set(static)
            assert {"pass_rate", "ci95", "episodes"} <= set(live)


def test_the_text_embeds_plots_tables_and_the_example(
    tmp_path: Path, report: dict[str, Any], write_logs: Callable[[int], dict[str, Path]]
) -> None:
    write_report(tmp_path / "run", report, write_logs(5))
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    for expected in ("](static.png)", "](live.png)", "](loss.png)", "find_train", "umi quickstart", "20,480,000"):
        assert expected in text
    assert "| I1-Inst | umi | 83.0 ± 7.0 | 100 |" in text
    assert "| chain | " in text and "| step_limit | 18 | 18 |" in text
    first = text.index("| I1-Inst | umi")
    assert text.index("| I1-Inst | single-multitask") < text.index("| I1-Tool | umi") and first > 0


def test_equal_compute_is_only_claimed_as_far_as_it_was_measured(report: dict[str, Any]) -> None:
    text = report_markdown(report, [])
    assert "**Equal compute**" in text and "`single-multitask` 1.00" in text and "not quite" not in text
    report["systems"]["umi"]["training"]["flops"] *= 1.2
    assert "differ by more than 5 %" in report_markdown(report, [])


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("equal-data", "**Equal data**"),
        ("trained on another day", "trained on another day"),
        (None, "matched neither for data nor for compute"),
    ],
)
def test_the_comparison_is_worded_as_the_report_says(
    report: dict[str, Any], comparison: str | None, expected: str
) -> None:
    text = report_markdown(report | {"comparison": comparison}, [])
    assert expected in text and "**Equal compute**" not in text


def test_one_system_is_not_called_a_comparison(report: dict[str, Any]) -> None:
    del report["systems"]["single-multitask"]
    text = report_markdown(report, [])
    assert text.startswith("# Report: umi\n") and "compute" not in text.split("## ")[0]


def test_missing_parts_leave_their_section_out(tmp_path: Path) -> None:
    write_report(tmp_path, {"systems": {"umi": {}}}, {})
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md"}
    assert "##" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_figure_that_is_missing_is_a_dash_and_draws_nothing(report: dict[str, Any]) -> None:
    scores = copy.deepcopy(report["systems"]["umi"]["static"]["I1-Inst"]) | {"rouge_l": None}
    scores["ci95"].pop("rouge_l")
    systems = {"umi": {"static": {"I1-Inst": scores}}}
    (table,) = all_tables({"systems": systems})
    assert table.rows[0][table.header.index("R-L")] == "–"
    image = static_plot({"umi": systems["umi"]["static"]})
    assert image is not None and image.startswith(PNG)
    assert percent(None) == "–" and percent(0.5) == "50.0" and percent(0.5, (0.4, 0.7)) == "50.0 ± 15.0"


def test_nothing_to_draw_is_no_plot() -> None:
    assert static_plot({"umi": {}}) is live_plot({}) is loss_plot({}) is None


def test_terminal_tables_show_every_system_and_split(report: dict[str, Any]) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    tables = rich_tables(report)
    for table in tables:
        console.print(table)
    text = console.export_text()
    assert len(tables) == 5
    assert all(name in text for name in (*SPLITS, *SYSTEMS, "Plan ACC", "pass rate", "FLOPs"))


def test_names_with_markup_stay_as_they_are() -> None:
    report = {"systems": {"a[red]|b": {"live": {"x": {"pass_rate": 1.0, "ci95": [1, 1], "episodes": 2}}}}}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(rich_tables(report)[0])
    assert "a[red]|b" in console.export_text()
    assert "a[red]\\|b" in report_markdown(report, [])


def test_plots_need_no_main_thread(write_logs: Callable[[int], dict[str, Path]]) -> None:
    images: list[bytes | None] = []
    losses = read_losses(write_logs(50))
    thread = threading.Thread(target=lambda: images.append(loss_plot(losses)))
    thread.start()
    thread.join()
    assert images[0] is not None and images[0].startswith(PNG)


def log(path: Path, *lines: str, end: str = "\n") -> dict[str, Path]:
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return {"umi": path}


def test_losses_are_read_by_system_stage_and_role(tmp_path: Path) -> None:
    logs = log(
        tmp_path / "m.jsonl",
        '{"stage": "global", "step": 1, "loss": {"planner": 2.0, "caller": null}, "lr": 0.1}',
        '{"stage": "local", "role": "caller", "step": 1, "loss": {"caller": 0.5}, "system": "other"}',
        '{"event": "resumed", "step": 1}',
        "",
        '{"stage": "global", "step": 1, "loss": {"planner": NaN, "caller": 1.5}}',
        '{"stage": "global", "step": 0, "loss": {"planner": 3.0}}',
    )
    assert read_losses(logs) == {
        ("umi", "global", "planner"): {0: 3.0, 1: 2.0},
        ("umi", "global", "caller"): {1: 1.5},
        ("other", "local", "caller"): {1: 0.5},
    }


def test_the_later_line_of_a_step_counts_and_a_torn_last_line_is_ignored(tmp_path: Path) -> None:
    line = '{"stage": "global", "step": 1, "loss": {"planner": %s}}'
    logs = log(tmp_path / "m.jsonl", line % 2.0, line % 1.0, '{"stage": "glo', end="")
    assert read_losses(logs) == {("umi", "global", "planner"): {1: 1.0}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: not JSON"),
        ("[1]", "line 2: "),
        ('{"stage": "global", "loss": {}}', "line 2: step: Field required"),
        ('{"stage": "global", "step": 1, "loss": 3}', "line 2: loss: "),
    ],
)
def test_a_bad_log_line_is_a_data_error(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_losses(log(tmp_path / "m.jsonl", '{"stage": "global", "step": 1, "loss": {}}', line))
    with pytest.raises(DataError, match="no such file"):
        read_losses({"umi": tmp_path / "missing.jsonl"})
