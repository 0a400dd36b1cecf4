"""What was given wrong ends with exit code 2 and one clear sentence on stderr."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Done

Umi = Callable[..., Done]
usage = namedtuple("usage", "total used free")


def refused(done: Done, *said: str) -> None:
    """Checks that it was one sentence which says all of this."""
    assert done.code == 2, done
    assert done.err.startswith("error: "), done.err
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err + done.out
    for part in said:
        assert part in done.err


def test_an_unknown_recipe_key(here: Umi, recipe: Path):
    recipe.write_text(recipe.read_text() + "batch_tokenz: 3\n")
    refused(here("train", recipe), "recipe.yaml", "unknown key 'batch_tokenz'", "did you mean 'batch_tokens'?")
    assert not (recipe.parent / "run").exists()


def test_an_unknown_key_among_the_overrides(here: Umi, recipe: Path):
    refused(here("train", recipe, "global_stage.stepps=3"), "unknown key 'global_stage.stepps'", "'steps'")


def test_a_recipe_that_is_not_there(umi: Umi, tmp_path: Path):
    refused(umi("train", tmp_path / "none.yaml"), "none.yaml", "No such file")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "{recipe}", "data.source={nowhere}"),
        ("eval", "static", "--model", "{run}", "--data", "{nowhere}"),
        ("eval", "static", "--predictions", "{nowhere}"),
        ("data", "inspect", "{nowhere}"),
        ("data", "convert", "{nowhere}", "--from", "alpha-umi", "--out", "{out}"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_data_file_that_is_not_there(
    here: Umi, recipe: Path, trained: Path, tmp_path: Path, arguments: tuple[str, ...]
):
    places = {"recipe": recipe, "run": trained, "nowhere": tmp_path / "nowhere.jsonl", "out": tmp_path / "out.jsonl"}
    refused(here(*(text.format(**places) for text in arguments)), "nowhere.jsonl", "no such file")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "not JSON"),
        ('{"messages": [{"role": "owner", "content": "x"}]}', "messages.0.role"),
        ('{"messages": [], "tool": []}', "tool"),
        ("[1, 2]", "object"),
        ('{"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}', "which no turn made"),
    ],
)
def test_a_malformed_line(here: Umi, recipe: Path, trained: Path, data: Path, tmp_path: Path, line: str, said: str):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join([*data.read_text(encoding="utf-8").splitlines()[:2], line, ""]), encoding="utf-8")
    refused(here("train", recipe, f"data.source={bad}"), "bad.jsonl, line 3: ", said)
    assert not (tmp_path / "run").exists(), "nothing is left half-written"
    refused(
        here("eval", "static", "--model", trained, "--data", bad, "--json", tmp_path / "o.json"),
        "bad.jsonl, line 3: ",
        said,
    )
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ({"name": "look", "parameters": "anything"}, "'parameters' must be a JSON Schema object"),
        ({"description": "nameless", "parameters": {}}, "non-empty string 'name'"),
        ("look", "function"),
        ({"name": 7, "parameters": {}}, "non-empty string 'name'"),
    ],
)
def test_a_tools_list_with_a_broken_schema(
    here: Umi, recipe: Path, data: Path, tmp_path: Path, function: Any, said: str
):
    record = json.loads(data.read_text(encoding="utf-8").splitlines()[0])
    record["tools"].append({"type": "function", "function": function})
    (tmp_path / "bad.jsonl").write_text("\n" + json.dumps(record) + "\n", encoding="utf-8")
    refused(here("train", recipe, f"data.source={tmp_path / 'bad.jsonl'}"), "bad.jsonl, line 2: tools.", said)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "Find it.", "--tools", "toolworld"),
        ("chat", "--tools", "toolworld"),
        ("eval", "live", "--world", "toolworld"),
        ("eval", "static", "--data", "toolworld"),
    ],
    ids=" ".join,
)
def test_a_run_directory_of_another_renderer(here: Umi, trained: Path, tmp_path: Path, arguments: tuple[str, ...]):
    shutil.copytree(trained, tmp_path / "other")
    content = json.loads((tmp_path / "other" / "run.json").read_text(encoding="utf-8"))
    content["renderer"]["fingerprint"] = "feedfeedfeedfeed"
    (tmp_path / "other" / "run.json").write_text(json.dumps(content), encoding="utf-8")
    refused(here(*arguments, "--model", tmp_path / "other"), "another renderer", "feedfeedfeedfeed", "train it again")


def test_a_directory_that_is_no_run(here: Umi, tmp_path: Path):
    refused(here("run", "Find it.", "--tools", "toolworld", "--model", tmp_path), "not a run directory")
    refused(here("eval", "live", "--world", "toolworld", "--model", tmp_path / "no"), "no such run directory")


def test_no_free_disk(here: Umi, recipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    refused(here("train", recipe), "0.0 GB are free", "free some space or choose another 'out'")


def test_a_disk_that_is_full_in_the_middle(here: Umi, recipe: Path, tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")
    refused(here("train", recipe), "metrics.jsonl", "No space left on device")


def test_a_place_that_cannot_be_written_to(here: Umi, recipe: Path, trained: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused(here("train", recipe, f"out={tmp_path / 'file' / 'run'}"), "file")
    refused(here("quickstart", "--out", tmp_path / "file", "--from-scratch", "--minutes", "1"), "file")


@pytest.mark.parametrize("minutes", ["0", "-3", "0.0", "nan", "inf"])
def test_no_minutes_for_the_quickstart(here: Umi, tmp_path: Path, minutes: str):
    refused(here("quickstart", "--minutes", minutes, "--out", tmp_path / "q"), "minutes")
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    "source", ["toolworlds", "openapi", "toolworld:x", "toolworld:0", "toolworld:99", "toolworld:²", ""]
)
def test_an_unknown_tools_source(here: Umi, trained: Path, source: str):
    refused(here("run", "Find it.", "--model", trained, "--tools", source), f"--tools {source!r}")


def test_an_empty_query(here: Umi, trained: Path):
    refused(here("run", " ", "--model", trained, "--tools", "toolworld"), "the query is empty")


def test_an_unknown_split(here: Umi, trained: Path):
    done = here("eval", "live", "--model", trained, "--world", "toolworld", "--split", "I4-Inst")
    refused(done, "--split I4-Inst", "I1-Inst, I1-Tool")


def test_an_unknown_world(here: Umi, trained: Path):
    refused(here("eval", "live", "--model", trained, "--world", "narnia"), "--world narnia", "toolworld")


def test_an_unknown_format(here: Umi, data: Path, tmp_path: Path):
    refused(here("data", "convert", data, "--from", "excel", "--out", tmp_path / "o"), "'excel'", "alpha-umi")


def test_nothing_to_evaluate(here: Umi, trained: Path):
    refused(here("eval", "static", "--model", trained), "--data FILE")


def test_another_recipe_for_a_directory_in_use(here: Umi, trained: Path, recipe: Path):
    refused(here("train", recipe, f"out={trained}"), "run of another recipe", "global_stage")


def test_what_the_command_line_does_not_know(here: Umi):
    for arguments in (
        ("fly",),
        ("run", "x"),
        ("quickstart", "--minutes", "soon"),
        ("quickstart", "--instructions", "0"),
    ):
        done = here(*arguments)
        assert done.code == 2
        assert "Traceback" not in done.err
