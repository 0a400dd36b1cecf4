"""`umi data convert | from-records | formats | inspect | stats | check | split`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from alpha_umi.cli.options import terminal
from alpha_umi.errors import DataError, UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

    from alpha_umi.data import Summary
    from alpha_umi.display import TokenRow
    from alpha_umi.trajectory import Trajectory

app = typer.Typer(no_args_is_help=True, help="Convert and look at trajectories.")


@app.command()
def convert(
    src: Annotated[Path, typer.Argument(help="A file or a folder.")],
    out: Annotated[Path, typer.Option(help="The file to write: JSONL, or one JSON array if it ends in .json.")],
    from_format: Annotated[str, typer.Option("--from", help="Its format; `umi data formats` lists them.")] = "auto",
    to_format: Annotated[str | None, typer.Option("--to", help="Write this format instead of trajectories.")] = None,
    tools: Annotated[Path | None, typer.Option(help="Tool documents, where records only name their tools.")] = None,
    role: Annotated[str | None, typer.Option(help="Whose rows `--to paper-rows` writes.")] = None,
    wording: Annotated[
        str | None, typer.Option(help="Of `--to paper-rows`: toolbench (if none is named) | toolalpaca.")
    ] = None,
    rationale: Annotated[str, typer.Option(help="keep | drop | rule: write missing rationales by rule.")] = "keep",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Convert foreign data into trajectories; what can't be converted goes to OUT.rejected.jsonl with the reason."""
    from alpha_umi.data import Options, convert_file
    from alpha_umi.data.rationales import rationales
    from alpha_umi.display import bars

    for option, value in (("--role", role), ("--wording", wording)):
        if value is not None and to_format != "paper-rows":
            raise UserError(f"{option} {value}: it is for the paper's rows; add --to paper-rows, or leave it out")
    options = Options.of(tools, role, wording or "toolbench")
    with bars(terminal(stderr=True)) as shown:
        summary = convert_file(
            src, from_format, out, lambda read: shown.count("records", read), options, to_format, rationales(rationale)
        )
    if as_json:
        typer.echo(json.dumps({
            "format": summary.from_format, "elements": summary.elements, "read": summary.read,
            "converted": summary.converted, "written": summary.written, "rejected": dict(summary.rejected),
        }))  # fmt: skip
    else:
        console = terminal()
        console.print(f"{summary.sentence()}: {out}", highlight=False)
        _print_rejected(console, summary.rejected, summary.rejected_path)
    if summary.read and not summary.converted:
        raise UserError(f"{src}: {_nothing_converted(summary, to_format)}")


def _nothing_converted(summary: Summary, to_format: str | None) -> str:
    """Why, where the records are, and what to do."""
    why = next(iter(summary.rejected))
    if to_format is not None and why.startswith(f"{to_format}: "):
        advice = f"Another --to may have a place for them; {summary.from_format} is what they were read as."
    else:
        advice = f"Is it really {summary.from_format}? --from names another format."
    return (
        f"not one of {summary.read} records could be converted ({why}); they are in {summary.rejected_path}. {advice}"
    )


@app.command("from-records")
def from_records(
    src: Annotated[Path, typer.Argument(help="The folder that `umi proxy --record` wrote to.")],
    out: Annotated[Path, typer.Option(help="The file of trajectories to write: JSONL.")],
    rationale: Annotated[str, typer.Option(help="keep | drop | rule: write missing rationales by rule.")] = "keep",
    each: Annotated[bool, typer.Option("--list", help="Print a line for each conversation: who answered it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary, and the list, as lines of JSON.")] = False,
) -> None:
    """Make trajectories of what a proxy recorded, one a conversation; the rest goes to OUT.rejected.jsonl."""
    from alpha_umi.data.rationales import rationales
    from alpha_umi.display import bars
    from alpha_umi.proxy.from_records import Conversation, convert_records

    def tell(one: Conversation) -> None:
        if as_json:
            typer.echo(json.dumps(vars(one)))
        else:
            used = one.usage.get("total_tokens", "an unknown number of")
            typer.echo(f"{one.id} {', '.join(one.models)}: {one.turns} turns, {one.calls} calls, {used} tokens")

    change = rationales(rationale)
    with bars(terminal(stderr=True)) as shown:
        done = convert_records(
            src, out, change=change, on_progress=lambda read: shown.count("records", read),
            on_conversation=tell if each else None,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({
            "records": done.records, "trajectories": done.trajectories, "rejected": dict(done.rejected),
        }))  # fmt: skip
        return
    console = terminal()
    console.print(f"{done.trajectories} trajectories of {done.records} recorded exchanges: {out}", highlight=False)
    _print_rejected(console, done.rejected, done.rejected_path)


def _print_rejected(console: Console, rejected: Mapping[str, int], path: Path | None) -> None:
    for reason, count in rejected.items():
        console.print(f"  rejected {count}: {reason}", highlight=False, markup=False)
    if path is not None:
        console.print(f"  they are in {path}", highlight=False, markup=False)


@app.command()
def formats() -> None:
    """List the formats that can be read and written."""
    from alpha_umi.data import FORMATS

    for name, one in FORMATS.items():
        ways = f"{'in' if one.read else '':3}{'out' if one.write or one.rows else '':4}"
        typer.echo(f"{name:18} {ways} {one.description}")


def _trajectories(file: Path) -> Iterator[Trajectory]:
    """The trajectories of a file.

    Raises:
        UserError: It has none, or its first line is something else: says how trajectories are made of it.
    """
    from alpha_umi.trajectory import read_jsonl

    number = 0
    try:
        for number, trajectory in enumerate(read_jsonl(file), 1):  # noqa: B007 (the handler and the end name it)
            yield trajectory
    except DataError as error:
        if number or error.line is None:
            raise
        raise UserError(
            f"{error}. Trajectories are one JSON object a line; `umi data convert {file} --out FILE` makes them."
        ) from error
    if not number:
        raise UserError(f"{file} holds no trajectory")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    index: Annotated[int, typer.Option(min=0, help="Which trajectory, from 0.")] = 0,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Render it as this run does; with `--renderer paper`, a checkpoint's id will do."),
    ] = None,
    observation_tokens: Annotated[int, typer.Option(min=16, help="Budget of an observation.")] = 256,
    html: Annotated[Path | None, typer.Option(help="Write the view as a page, instead of printing it.")] = None,
    renderer_name: Annotated[str, typer.Option("--renderer", help="transcript, or paper: its rows.")] = "transcript",
    role: Annotated[
        str | None,
        typer.Option(
            help="Whose rows `--renderer paper` shows: planner | caller | summarizer | backbone. "
            "If none is named, those of the first three, in the order of the steps.",
        ),
    ] = None,
    wording: Annotated[
        str | None,
        typer.Option(help="Of `--renderer paper`: toolbench | toolalpaca (if none is named, what --model says)."),
    ] = None,
) -> None:
    """Show a trajectory as the model sees it: tokens coloured by role, underlined where they are in the loss."""
    import itertools

    from alpha_umi.display import html_page
    from alpha_umi.trajectory import atomic_write

    if renderer_name not in ("transcript", "paper"):
        raise UserError(f"unknown renderer {renderer_name!r}; known are transcript and paper")
    if renderer_name == "transcript" and wording is not None:
        raise UserError(f"--wording {wording}: only the paper's prompts have wordings; add --renderer paper")
    trajectory = next(itertools.islice(_trajectories(file), index, None), None)
    if trajectory is None:
        count = sum(1 for _ in _trajectories(file))
        raise UserError(f"{file} has no trajectory {index}; there are {count}, the first is 0")
    if renderer_name == "paper":
        view, lengths = _rows_shown(trajectory, role, model, wording)
    else:
        view, lengths = _transcript_shown(trajectory, model, observation_tokens)
    console = terminal()
    if html is not None:
        with atomic_write(html) as page:
            page.write(html_page(view, lengths))
        console.print(f"page: {html}", highlight=False)
        return
    console.print(view, soft_wrap=True)
    console.print(lengths)


def _transcript_shown(trajectory: Trajectory, model: Path | None, observation_tokens: int) -> tuple[Text, Table]:
    from alpha_umi.display import transcript_lengths, transcript_view
    from alpha_umi.run_directory import load_renderer

    renderer = load_renderer(model, observation_tokens)
    transcript = renderer.render(trajectory)
    return transcript_view(transcript, renderer.show), transcript_lengths(transcript)


def _rows_shown(
    trajectory: Trajectory, role: str | None, model: Path | None, wording: str | None
) -> tuple[Text, Table]:
    """The paper's rows of a role, or of all three."""
    from alpha_umi.data import Options
    from alpha_umi.data.paper_rows import rows
    from alpha_umi.display import rows_lengths, rows_view
    from alpha_umi.engines.load import read_paper_run
    from alpha_umi.transcript import ROLES

    described = None if model is None else read_paper_run(model)
    usual = "toolbench" if described is None else described.wording
    found = [
        (len(row["history"]), name, row)
        for name in ([role] if role is not None else ROLES)
        for row in rows([trajectory], Options.of(role=name, wording=usual if wording is None else wording))
    ]
    tokenizers = _tokenizers(model, sorted({name for _, name, _ in found}))
    shown = [_token_row(tokenizers[name], name, row) for _, name, row in sorted(found, key=lambda one: one[0])]
    return rows_view(shown), rows_lengths(shown)


def _tokenizers(model: Path | None, roles: Iterable[str]) -> dict[str, PreTrainedTokenizerBase]:
    """What tokenizes the rows of each role: a run's tokenizer, a checkpoint's, or the shipped one."""
    from alpha_umi.engines.load import read_paper_run
    from alpha_umi.run_directory import load_bare_tokenizer, load_renderer, read_info

    if model is None or read_info(model) is not None:
        return dict.fromkeys(roles, load_renderer(model, 256).tokenizer)
    described = read_paper_run(model)
    if described is None:
        return dict.fromkeys(roles, load_bare_tokenizer(model.as_posix()))
    return {role: load_bare_tokenizer(getattr(described, role, described.planner)) for role in roles}


def _token_row(tokenizer: PreTrainedTokenizerBase, role: str, row: Mapping[str, Any]) -> TokenRow:
    """A row as its model reads it, and the end token after what it has to write."""
    from alpha_umi.display import TokenRow

    def ids(text: str, whole: bool) -> list[int]:
        return cast("list[int]", tokenizer(text, add_special_tokens=whole, verbose=False)["input_ids"])

    def decode(ids: list[int]) -> str:
        return cast("str", tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    end = [] if tokenizer.eos_token_id is None else [cast("int", tokenizer.eos_token_id)]
    return TokenRow(role, ids(row["input"], True), [*ids(row["target"], False), *end], decode)


@app.command()
def stats(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    model: Annotated[Path | None, typer.Option("--model", help="Count tokens as this run does.")] = None,
    tokens: Annotated[bool, typer.Option(help="Count tokens at all.")] = True,
    plot: Annotated[Path | None, typer.Option(help="Draw the distributions into this PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Count what a file holds: trajectories, steps, decisions, calls, errors, rationales, lengths."""
    from alpha_umi.data.stats import Stats
    from alpha_umi.display import bars, stats_tables
    from alpha_umi.run_directory import load_renderer
    from alpha_umi.trajectory import atomic_write

    counted = Stats(load_renderer(model, 256) if tokens else None)
    with bars(terminal(stderr=True)) as shown:
        for number, trajectory in enumerate(_trajectories(file), 1):
            counted.add(trajectory)
            shown.count("trajectories", number)
    if plot is not None:
        from alpha_umi.evaluation.plots import lengths_plot

        with atomic_write(plot, "wb") as png:
            png.write(lengths_plot(counted.values))
    if as_json:
        typer.echo(json.dumps(counted.to_json()))
        return
    for table in stats_tables(counted.to_json()):
        terminal().print(table)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    show: Annotated[int, typer.Option(min=0, help="How many findings of a kind to show.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print every finding as a line of JSON.")] = False,
) -> None:
    """Warn of what hurts training: cut names and replies, calls that break their schema, duplicates, and more."""
    from alpha_umi.data.check import KINDS
    from alpha_umi.data.check import check as findings_of

    found: dict[str, list[str]] = {}
    for finding in findings_of(_trajectories(file)):
        found.setdefault(finding.kind, []).append(f"trajectory {finding.index}: {finding.what}")
        if as_json:
            typer.echo(json.dumps({"kind": finding.kind, "index": finding.index, "what": finding.what}))
    if as_json:
        return
    console = terminal()
    for kind, places in sorted(found.items(), key=lambda item: -len(item[1])):
        console.print(f"{len(places):6} {kind}: {KINDS[kind]}", highlight=False, markup=False)
        for place in places[:show]:
            console.print(f"         {place[:200]}", style="dim", highlight=False, markup=False)
    console.print("nothing found" if not found else f"{sum(map(len, found.values()))} findings", highlight=False)


@app.command()
def split(
    file: Annotated[Path, typer.Argument(help="A JSONL file of trajectories.")],
    train: Annotated[Path, typer.Option(help="Where the larger side goes.")],
    test: Annotated[Path, typer.Option(help="Where the held-out side goes.")],
    by: Annotated[
        str, typer.Option(help="tool | instruction | category | tool-set | the path of a value in extra.")
    ] = "instruction",
    share: Annotated[float, typer.Option(help="Share of the trajectories to hold out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, other groups.")] = 0,
) -> None:
    """Split a file without leaks: trajectories of one instruction, category or set of called tools stay together."""
    from alpha_umi.data import split_by
    from alpha_umi.trajectory import write_jsonl

    kept, held_out = split_by(_trajectories(file), by, share, seed)
    terminal().print(f"{write_jsonl(train, kept)} to {train}, {write_jsonl(test, held_out)} to {test}", highlight=False)
