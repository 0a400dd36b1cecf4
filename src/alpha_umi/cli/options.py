"""What several verbs share: options, the terminal, tables of figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from alpha_umi.agent import ChosenStrategy
    from alpha_umi.engines.load import Source

Model = Annotated[Path | None, typer.Option("--model", help="A run directory.")]
Variant = Annotated[
    str | None, typer.Option("--variant", help="full | lora | alora, of a run with several (its first, if not given).")
]
Planner = Annotated[str | None, typer.Option("--planner", help="The paper's planner: a directory or a hub id.")]
Caller = Annotated[str | None, typer.Option("--caller", help="The paper's caller, likewise.")]
Summarizer = Annotated[str | None, typer.Option("--summarizer", help="The paper's summarizer, likewise.")]
EngineFile = Annotated[
    Path | None,
    typer.Option("--engine", help="A YAML file of OpenAI-compatible endpoints (docs/engines.md), in place of a model."),
]
RendererName = Annotated[
    str | None,
    typer.Option(
        "--renderer",
        help="transcript, paper (for the paper's own checkpoints) or toolllama (for one like ToolLLaMA: --model ID).",
    ),
]
WordingName = Annotated[
    str | None, typer.Option("--wording", help="Of the paper's prompts: toolbench (if not given) | toolalpaca.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0, help="0 takes the likeliest token (if not given; 0.5 for the paper's checkpoints, as its code does)."
    ),
]
Constrain = Annotated[
    bool, typer.Option("--constrain/--no-constrain", help="Hold calls and decisions to what is legal.")
]
CompareUnconstrained = Annotated[
    bool,
    typer.Option("--compare-unconstrained", help="Run twice, held to what is legal and not, and show both."),
]
Tools = Annotated[
    list[str],
    typer.Option(
        "--tools",
        help="Where tools come from; may be repeated: toolworld[:N], FILE.py or a module, FILE.json (function schemas, "
        "ToolBench tools), FILE.yaml or URL (OpenAPI), 'mcp:COMMAND LINE' or mcp+URL (an MCP server), or @FILE (a list "
        "of these, with options for each OpenAPI document).",
    ),
]
Retrieve = Annotated[int | None, typer.Option(min=1, help="Show the agent only the K tools that fit the query best.")]
Retriever = Annotated[
    str,
    typer.Option(
        "--retriever", help="What finds tools: bm25, or a sentence-transformers model by name (the extra `retrieval`)."
    ),
]
ReadMore = Annotated[
    int | None,
    typer.Option(
        "--read-more", min=16,
        help="Show this many tokens of a longer reply, and let the agent read on with the tool read_more.",
    ),
]  # fmt: skip
Only = Annotated[list[str] | None, typer.Option("--only", help="Of an OpenAPI document, only this tool; repeatable.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="Of an OpenAPI document, only tools of this tag.")]
Auth = Annotated[
    list[str] | None,
    typer.Option("--auth", help="SCHEME=VARIABLE: the environment variable with an OpenAPI server's key or token."),
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Of an OpenAPI document's server.")]
Approve = Annotated[str, typer.Option(help="Which calls you confirm: always | writes | never.")]
StrategyText = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="react | dfsdt | best-of-n, with options: dfsdt:width=2,steps=12,decisions=60, best-of-n:n=4.",
    ),
]
Instructions = Annotated[int | None, typer.Option(min=1, help="Instructions a split (200 or 100, if not given).")]


_PAPER_TEMPERATURE = 0.5


def terminal(stderr: bool = False) -> Console:
    """Where people read: standard output, or standard error for what isn't the result."""
    from rich.console import Console

    return Console(stderr=stderr)


def strategy_for(text: str, source: Source, temperature: float | None = None) -> ChosenStrategy:
    """The strategy and temperature that were typed; models prompted with texts are shown what was tried before."""
    from alpha_umi.agent import chosen_strategy
    from alpha_umi.engines.load import OpenAIRun, PaperRun

    if temperature is None:
        temperature = _PAPER_TEMPERATURE if isinstance(source, PaperRun) else 0.0
    prompted = source.prompted if isinstance(source, OpenAIRun) else not isinstance(source, Path)
    return chosen_strategy(text, prompted, temperature)


def print_tables(systems: dict[str, Any]) -> None:
    """Prints the figures of systems as tables, in the form a report has."""
    from alpha_umi.evaluation.report import rich_tables

    console = terminal()
    for table in rich_tables({"systems": systems}):
        console.print(table)
