"""Converting a file: streamed, counted, atomic; rejected records are kept beside the result."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from alpha_umi.cli import app
from alpha_umi.data import FORMATS, Rejected, convert, convert_file, recognise
from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import read_jsonl

GOOD: dict[str, Any] = {
    "tools": [],
    "instruction": "Do it.",
    "conversations": [{"from": "user", "value": "Do it."}, {"from": "assistant", "value": "No. Next: give up."}],
}
ORPHAN = GOOD | {"conversations": [{"from": "user", "value": "x"}, {"from": "observation", "value": "y"}]}
RECORDS = [GOOD, ORPHAN, 7, GOOD, ORPHAN]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(RECORDS, indent=2))
    return path


def test_the_summary_counts_what_was_read_converted_and_rejected_by_reason(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "a.jsonl"
    seen: list[int] = []
    summary = convert_file(source, "alpha-umi", out, on_progress=seen.append)
    assert (summary.elements, summary.read, summary.converted) == (5, 5, 2)
    assert summary.sentence() == "2 of 5 records converted (alpha-umi)"
    assert summary.rejected == {"an observation follows no call": 2, "Input should be an object": 1}
    assert seen == [1, 2, 3, 4, 5]
    assert [t.id for t in read_jsonl(out)] == ["in-0", "in-3"]


def test_rejected_records_are_kept_with_their_place_and_reason(source: Path, tmp_path: Path) -> None:
    summary = convert_file(source, "alpha-umi", tmp_path / "a.jsonl")
    kept = tmp_path / "a.jsonl.rejected.jsonl"
    assert summary.rejected_path == kept
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(line["source"], line["index"], line["record"]) for line in lines] == [
        ("in.json", 1, ORPHAN),
        ("in.json", 2, 7),
        ("in.json", 4, ORPHAN),
    ]


def test_where_nothing_is_rejected_an_older_rejection_file_goes(source: Path, tmp_path: Path) -> None:
    convert_file(source, "alpha-umi", tmp_path / "a.jsonl")
    source.write_text(json.dumps([GOOD]))
    summary = convert_file(source, "alpha-umi", tmp_path / "a.jsonl")
    assert (summary.rejected, summary.rejected_path) == ({}, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "in.json"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[{},\n\n{},\n{oops}]", 4, "not JSON: .* at column"),
        ('[{"a": 1}\n{"a": 2}]', 2, "neither a comma nor the end"),
        ("[{},\n{}", 2, "neither a comma nor the end"),
        ("[{}]\n[]", 1, "text after the end"),
        ("\n7", 2, "not a JSON array"),
        ("", 1, "not a JSON array"),
        ("[" * 100_000, 1, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_source_that_is_not_json_names_the_line_and_leaves_the_old_result(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    source, out = tmp_path / "in.json", tmp_path / "a.jsonl"
    source.write_text(text)
    out.write_text("old")
    with pytest.raises(DataError, match=reason) as caught:
        convert_file(source, "alpha-umi", out)
    assert caught.value.line == line
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "in.json"]


def test_one_record_a_line_and_compressed_files_are_read_too(tmp_path: Path) -> None:
    lines = f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD)}\n".encode()
    (tmp_path / "plain.jsonl").write_bytes(lines)
    (tmp_path / "small.jsonl.xz").write_bytes(lzma.compress(lines))
    converted = list(convert(tmp_path, "alpha-umi"))
    assert [item.id for item in converted if not isinstance(item, Rejected)] == [
        "plain-0",
        "plain-1",
        "small-0",
        "small-1",
    ]


def test_a_bad_line_of_a_jsonl_source_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        json.dumps(GOOD).encode() + b"\n{oops\n" + b'{"\xff": 1}\n' + b"[" * 99_999 + b"\n" + b'{"a": 1}\n'
    )
    good, *bad = convert(path, "alpha-umi")
    assert not isinstance(good, Rejected)
    assert [(item.index, item.reason[:9]) for item in bad if isinstance(item, Rejected)] == [
        (1, "not JSON:"), (2, "not UTF-8"), (3, "nested to"), (4, "tools: Fi"),
    ]  # fmt: skip


def test_json_that_holds_one_object_or_one_a_line_is_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(GOOD, indent=1))
    (tmp_path / "b.json").write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n")
    assert [item.id for item in convert(tmp_path, "auto") if not isinstance(item, Rejected)] == ["a-0", "b-0", "b-1"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json.xz", b"not xz", "not a whole xz file"),
        ("b.json.xz", lzma.compress(b"[]" * 99)[:-20], "not a whole xz file"),
        ("c.json", b'["\n\xff"]', "line 2: not UTF-8"),
    ],
)
def test_a_damaged_source_is_a_data_error(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        list(convert(tmp_path / name, "alpha-umi"))


def test_a_missing_source_an_empty_folder_and_an_unknown_format_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        convert_file(tmp_path / "none.json", "alpha-umi", tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"holds no file that ends in \.json"):
        convert_file(tmp_path, "alpha-umi", tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="unknown format 'toolbank'; known are alpha-umi, "):
        convert_file(tmp_path, "toolbank", tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_conversion_of_nothing_but_rejected_records_fails_and_says_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([ORPHAN, ORPHAN]))
    result = convert_on_the_command_line(tmp_path, "--from", "alpha-umi", "--json")
    assert json.loads(result.stdout)["rejected"] == {"an observation follows no call": 2}
    assert isinstance(result.exception, UserError)
    assert "not one of 2 records could be converted (an observation follows no call); they are in" in str(
        result.exception
    )
    assert (tmp_path / "out.jsonl.rejected.jsonl").read_text().count("\n") == 2


def test_where_nothing_can_be_written_the_target_is_to_blame(tmp_path: Path) -> None:
    record = {"messages": [{"role": "system", "content": "Hi."}, {"role": "user", "content": "x"}], "tools": []}
    (tmp_path / "in.json").write_text(json.dumps([record]))
    said = str(convert_on_the_command_line(tmp_path, "--from", "openai", "--to", "alpha-umi").exception)
    assert "(alpha-umi: the format has no system message)" in said
    assert "Another --to" in said and "--from" not in said


@pytest.mark.parametrize("given", [("--role", "planner"), ("--wording", "toolalpaca")])
def test_what_only_the_papers_rows_take_is_refused_for_anything_else(
    source: Path, tmp_path: Path, given: tuple
) -> None:
    result = convert_on_the_command_line(tmp_path, "--from", "alpha-umi", *given)
    assert isinstance(result.exception, UserError) and "add --to paper-rows" in str(result.exception)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("verb", ["inspect", "stats", "check", "split"])
def test_a_file_that_is_no_trajectories_is_told_how_they_are_made(source: Path, tmp_path: Path, verb: str) -> None:
    sides = ["--train", str(tmp_path / "a"), "--test", str(tmp_path / "b")] if verb == "split" else []
    said = str(CliRunner().invoke(app, ["data", verb, str(source), *sides]).exception)
    assert "line 1: not JSON" in said and f"umi data convert {source} --out FILE" in said
    source.write_text("")
    result = CliRunner().invoke(app, ["data", verb, str(source), *sides])
    assert isinstance(result.exception, UserError) and "holds no trajectory" in str(result.exception)


def test_an_empty_file_of_a_named_format_converts_to_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("[]")
    result = convert_on_the_command_line(tmp_path, "--from", "alpha-umi")
    assert result.exit_code == 0 and "0 of 0 records converted" in result.output
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert isinstance(convert_on_the_command_line(tmp_path).exception, DataError), "no format can be recognised"


def convert_on_the_command_line(folder: Path, *options: str) -> Result:
    given = ["data", "convert", str(folder / "in.json"), "--out", str(folder / "out.jsonl"), *options]
    return CliRunner().invoke(app, given, env={"COLUMNS": "200"})


def test_every_format_is_named_by_its_key_and_described() -> None:
    assert all(name == converter.name and converter.description for name, converter in FORMATS.items())


def test_chats_without_tools_do_not_hide_the_format_of_the_others(tmp_path: Path) -> None:
    chat = {"conversations": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps([chat, chat, GOOD, chat]))
    assert recognise(path) == "alpha-umi"
    path.write_text(json.dumps([{"nothing": "known"}, {"nothing": "either"}]))
    with pytest.raises(UserError, match="no format recognises these records; name it with --from") as refused:
        recognise(path)
    assert "paper-rows" not in str(refused.value)
