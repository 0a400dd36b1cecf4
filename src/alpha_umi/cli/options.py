"""What several verbs share: options, groups of them, the terminal, tables of figures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from alpha_umi.agent import ChosenStrategy
    from alpha_umi.engines import Engine
    from alpha_umi.engines.load import Source
    from alpha_umi.tools import OpenApiOptions

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


@dataclass(frozen=True)
class ModelOptions:
    """Which model speaks, and whether it is held to what is legal."""

    model: Model = None
    variant: Variant = None
    planner: Planner = None
    caller: Caller = None
    summarizer: Summarizer = None
    renderer: RendererName = None
    wording: WordingName = None
    engine_file: EngineFile = None
    constrain: Constrain = True

    @property
    def name(self) -> str:
        """What reports call it."""
        return (self.model or self.engine_file or Path("paper's checkpoints")).name

    def source(self, planner_speaker: str | None = None) -> Source:
        """What was named; `alpha_umi.engines.load.chosen_source`."""
        from alpha_umi.engines.load import chosen_source

        return chosen_source(
            self.model, self.planner, self.caller, self.summarizer, self.renderer, planner_speaker, self.engine_file,
            self.wording,
        )  # fmt: skip

    def open(self, source: Source) -> AbstractContextManager[Engine]:
        """The engine of the source."""
        from alpha_umi.engines.load import open_engine

        return open_engine(source, constrain=self.constrain, variant=self.variant)


@dataclass(frozen=True)
class ShownOptions:
    """What of its tools and their replies the agent is shown."""

    retrieve: Retrieve = None
    retriever: Retriever = "bm25"
    read_more: ReadMore = None


@dataclass(frozen=True)
class ApiOptions:
    """What holds for every OpenAPI document of the command."""

    only: Only = None
    tag: Tag = None
    auth: Auth = None
    base_url: BaseUrl = None

    def options(self) -> OpenApiOptions:
        """As `alpha_umi.tools.open_tools` takes them."""
        from alpha_umi.tools import OpenApiOptions

        return OpenApiOptions(self.only or (), self.tag or (), self.base_url, self.auth or ())


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of its groups one by one, as typer wants them; a group is a dataclass of options."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {
        name: each.annotation
        for name, each in signature.parameters.items()
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @wraps(command)
    def taking_options(**given: Any) -> None:
        made = {name: kind(**{one.name: given.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}
        command(**given, **made)

    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += _options(groups[name]) if name in groups else [parameter.replace(kind=parameter.KEYWORD_ONLY)]
    taking_options.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    return taking_options


def _options(group: type[Any]) -> list[inspect.Parameter]:
    kind, hints = inspect.Parameter.KEYWORD_ONLY, get_type_hints(group, include_extras=True)
    return [inspect.Parameter(one.name, kind, default=one.default, annotation=hints[one.name]) for one in fields(group)]


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
