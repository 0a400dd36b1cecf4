"""`umi data inspect`: what a model reads and what it learns, token by token, printed or as a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alpha_umi.cli import app
from alpha_umi.data import Options
from alpha_umi.data.paper_rows import rows
from alpha_umi.display import TokenRow, html_page, rows_lengths, rows_view, transcript_view
from alpha_umi.errors import UserError
from alpha_umi.run_directory import load_renderer, load_tokenizer, shipped_base
from alpha_umi.trajectory import (
    AssistantMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    write_jsonl,
)
from tests.checkpoints import byte_tokenizer, save_checkpoint

TOOL = Tool.of("find", "Finds.", {"type": "object", "properties": {"q": {"type": "string"}}})
SAMPLE = Trajectory((TOOL,), (
    UserMessage("Find 東京."), AssistantMessage("I look.", (ToolCall("c", "find", '{"q": "x"}'),)),
    ToolMessage("c", "seen"), AssistantMessage("Done.", content="It is 42 ☃."),
))  # fmt: skip
GAVE_UP = Trajectory((TOOL,), (UserMessage("Find it."), AssistantMessage("No.", refusal="I can't.")))
Inspect = Callable[..., Result]


@pytest.fixture
def inspect(tmp_path: Path) -> Inspect:
    write_jsonl(tmp_path / "data.jsonl", [SAMPLE, GAVE_UP])

    def run(*arguments: object) -> Result:
        given = ["data", "inspect", str(tmp_path / "data.jsonl"), *map(str, arguments)]
        return CliRunner().invoke(app, given, env={"COLUMNS": "200"})

    return run


def inputs(role: str) -> list[str]:
    return [row["input"] + row["target"] for row in rows([SAMPLE], Options.of(role=role))]


def byte_row(prompt: str, target: str) -> TokenRow:
    tokenizer = byte_tokenizer()

    def decode(ids: list[int]) -> str:
        text = tokenizer.decode(ids)
        assert isinstance(text, str)
        return text

    return TokenRow("caller", tokenizer.encode(prompt), tokenizer.encode(target), decode)


# ---- the paper's rows


def test_all_roles_rows_are_shown_in_the_order_of_the_steps(inspect: Inspect) -> None:
    shown = inspect("--renderer", "paper").output
    titles = [line.split()[2] for line in shown.splitlines() if line.startswith(" row ")]
    assert titles == ["planner:", "caller:", "planner:", "summarizer:"]
    for text in [*inputs("planner"), *inputs("caller"), *inputs("summarizer")]:
        assert text in shown


def test_one_role_may_be_named_the_backbone_among_them(inspect: Inspect) -> None:
    shown = inspect("--renderer", "paper", "--role", "backbone").output
    assert shown.count(", backbone: ") == 2 and all(text in shown for text in inputs("backbone"))
    result = inspect("--renderer", "paper", "--role", "critic")
    assert isinstance(result.exception, UserError) and "unknown role 'critic'" in str(result.exception)


def test_lengths_are_those_of_the_tokenizer_with_the_end_token(inspect: Inspect) -> None:
    tokenizer = load_tokenizer(str(shipped_base()))
    (row,) = rows([SAMPLE], Options.of(role="caller"))
    read, learned = len(tokenizer.encode(row["input"])), len(tokenizer.encode(row["target"])) + 1
    lines = inspect("--renderer", "paper", "--role", "caller").output.splitlines()
    assert lines[0] == f" row 1, caller: {read} tokens read, {learned} learned "
    assert lines[-1].split() == ["caller", "1", str(read + learned), str(learned), str(read + learned)]


def test_the_tokenizer_is_the_named_checkpoints(inspect: Inspect, tmp_path: Path) -> None:
    name = save_checkpoint(0, tmp_path / "planner")
    (row,) = rows([SAMPLE], Options.of(role="summarizer"))
    bytes_read = len(row["input"].replace("</s>", "s").encode())  # which is one token
    title = f" row 1, summarizer: {bytes_read} tokens read"
    assert title in inspect("--renderer", "paper", "--role", "summarizer", "--model", name).output

    run = tmp_path / "run"
    run.mkdir()
    (run / "paper.json").write_text(json.dumps(dict.fromkeys(("planner", "caller", "summarizer"), name)))
    assert title in inspect("--renderer", "paper", "--role", "summarizer", "--model", run).output

    result = inspect("--renderer", "paper", "--model", tmp_path / "nothing")
    assert isinstance(result.exception, UserError)


def test_the_papers_rows_may_be_shown_in_either_wording(inspect: Inspect, tmp_path: Path) -> None:
    usual = inspect("--renderer", "paper", "--role", "planner").output
    other = inspect("--renderer", "paper", "--role", "planner", "--wording", "toolalpaca").output
    assert "conclusion or give up." in usual and "conclusion or give up." not in other
    result = inspect("--renderer", "paper", "--wording", "x")
    assert isinstance(result.exception, UserError) and "unknown wording 'x'" in str(result.exception)
    result = inspect("--wording", "toolalpaca")
    assert isinstance(result.exception, UserError) and "add --renderer paper" in str(result.exception)


def test_a_trajectory_without_such_a_row_shows_none(inspect: Inspect) -> None:
    result = inspect("--index", 1, "--renderer", "paper", "--role", "summarizer")
    assert result.exit_code == 0 and "tokens read" not in result.output


def test_the_prompt_is_dim_and_what_is_learned_is_underlined_in_the_roles_colour() -> None:
    view = rows_view([byte_row("ab", "cd")])
    styles = {view.plain[span.start : span.end]: str(span.style) for span in view.spans}
    assert styles["a"].startswith("dim") and styles["c"].startswith("yellow underline")
    assert "bold" in styles["a"] and "bold" not in styles["b"], "tokens can be told apart"


def test_characters_of_several_tokens_are_shown_whole() -> None:
    view = rows_view([byte_row("東京", "é☃")])
    assert "東京é☃" in view.plain and "\ufffd" not in view.plain
    renderer = load_renderer(None, 64)
    view = transcript_view(renderer.render(SAMPLE), renderer.show)
    assert "東京" in view.plain and "☃" in view.plain and "\ufffd" not in view.plain


def test_broken_bytes_are_shown_too() -> None:
    row = byte_row("é", "é")
    view = rows_view([TokenRow(row.role, row.prompt[:1], row.target[1:], row.decode)])
    assert view.plain.count("\ufffd") == 2


# ---- pages


@pytest.mark.parametrize("renderer", ["paper", "transcript"])
def test_a_page_shows_the_same(inspect: Inspect, tmp_path: Path, renderer: str) -> None:
    result = inspect("--renderer", renderer, "--html", tmp_path / "page.html")
    assert result.exit_code == 0 and "page.html" in result.output.replace("\n", "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "underline" in page and "☃" in page
    assert "in the loss" in page


def test_text_from_outside_is_no_markup_of_a_page() -> None:
    row = byte_row("<script>[bold]", "x")
    page = html_page(rows_view([row]), rows_lengths([row]))
    assert "<script>" not in page


# ---- what is refused


def test_another_renderer_or_a_trajectory_that_is_not_there_is_refused(inspect: Inspect) -> None:
    result = inspect("--renderer", "papyrus")
    assert isinstance(result.exception, UserError) and "known are transcript and paper" in str(result.exception)
    result = inspect("--index", 2)
    assert isinstance(result.exception, UserError) and "has no trajectory 2" in str(result.exception)
