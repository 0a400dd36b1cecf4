"""`umi run` and `umi chat`: the agent at work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi import compute
from alpha_umi.cli.options import (
    ApiOptions,
    Approve,
    ModelOptions,
    ShownOptions,
    StrategyText,
    Temperature,
    Tools,
    spread,
    strategy_for,
    terminal,
)
from alpha_umi.cli.tools import show_left_out
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from alpha_umi.agent import ChosenStrategy, Episode
    from alpha_umi.engines import Engine
    from alpha_umi.tools import Approval, ToolSource
    from alpha_umi.tools.sources import OpenTools
    from alpha_umi.trajectory import Tool

    Choice = Callable[[Sequence[Tool], str], tuple[Tool, ...]]


def _choice(k: int | None, retriever: str) -> Choice | None:
    """What picks the ``k`` tools that fit a query best; None shows all."""
    from alpha_umi.tools.retrieve import BM25, open_retriever, retrieve

    if k is not None:
        return partial(retrieve, k=k, index=open_retriever(retriever))
    if retriever != BM25:
        raise UserError(f"--retriever {retriever}: add --retrieve K, how many tools the agent is to be shown")
    return None


def _episode(query: str, source: ToolSource, best: Choice | None) -> Episode:
    """An episode for a query; of the source's tools it is shown the best (and `read_more`), or all."""
    from alpha_umi.agent import Episode
    from alpha_umi.tools.read_more import KeepingSource
    from alpha_umi.trajectory import UserMessage

    own = (source.read_more,) if isinstance(source, KeepingSource) else ()
    choice = [tool for tool in source.tools if tool not in own]
    shown = None if best is None else (*best(choice, query), *own)
    return Episode(0, source, [UserMessage(query)], shown)


def _readable(source: ToolSource, engine: Engine, tokens: int | None) -> AbstractContextManager[ToolSource]:
    """The source; if replies are to be cut at so many tokens, one that keeps them whole."""
    from alpha_umi.tools.read_more import keeping
    from alpha_umi.tools.text import Budget

    if tokens is None:
        return nullcontext(source)
    return keeping(source, Budget(tokens, engine.renderer.encode, engine.renderer.decode))


def _approval(policy: str) -> Approval:
    """Asks at the terminal, if there is one."""
    from rich.text import Text

    from alpha_umi.tools import Approval
    from alpha_umi.tools.text import observable

    def ask(name: str, arguments: Mapping[str, Any]) -> bool:
        call = observable(f"{name}({json.dumps(arguments, ensure_ascii=False)})", 2000)
        try:
            answer = terminal(stderr=True).input(Text(f"   confirm  {call}  make this call? [y/N] ", "bold red"))
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    return Approval.of(policy, ask if sys.stdin.isatty() else None)


@spread
def run(
    query: Annotated[str, typer.Argument(help="What the agent is to do.")],
    tools: Tools,
    *,
    speaking: ModelOptions,
    strategy: StrategyText = "react",
    temperature: Temperature = None,
    shown: ShownOptions,
    api: ApiOptions,
    approve: Approve = "writes",
    trace: Annotated[Path | None, typer.Option(help="Write every step there as it is taken (JSONL).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as one JSON object.")] = False,
) -> None:
    """Solve one query; the planner's rationale, the calls, the replies and the answer are shown as they come."""
    from alpha_umi.agent import open_trace, run_one
    from alpha_umi.display import agent_display
    from alpha_umi.tools import open_tools

    if not query.strip():
        raise UserError("the query is empty: say what the agent is to do")
    approval = _approval(approve)
    source = speaking.source()
    chosen = strategy_for(strategy, source, temperature)
    best = _choice(shown.retrieve, shown.retriever)
    compute.use_all_cores()
    console = terminal()
    with (
        open_trace(trace) as written, open_tools(tools, query, api.options()) as opened,
        speaking.open(source) as engine, _readable(opened.source, engine, shown.read_more) as readable,
    ):  # fmt: skip
        show_left_out(opened.source.left_out)
        outcome = run_one(
            engine, _episode(query, readable, best), chosen.limits, chosen.sampling,
            on_event=None if as_json else agent_display(console), approval=approval, repair=True, runner=opened.runner,
            strategy=chosen.strategy, trace=written,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(outcome.to_json(), ensure_ascii=False))


@spread
def chat(
    tools: Tools,
    *,
    speaking: ModelOptions,
    strategy: StrategyText = "react",
    temperature: Temperature = None,
    shown: ShownOptions,
    api: ApiOptions,
    approve: Approve = "writes",
) -> None:
    """Talk with the agent; an empty line or Ctrl-D ends it."""
    from alpha_umi.tools import open_tools

    approval = _approval(approve)
    source = speaking.source()
    chosen = strategy_for(strategy, source, temperature)
    best = _choice(shown.retrieve, shown.retriever)
    compute.use_all_cores()
    console = terminal()
    with speaking.open(source) as engine:
        query = _ask(console)
        told: dict[str, str] = {}
        while query is not None:
            with (
                open_tools(tools, query, api.options()) as opened,
                _readable(opened.source, engine, shown.read_more) as readable,
            ):
                if opened.source.left_out != told:  # every conversation opens the sources anew
                    told = opened.source.left_out
                    show_left_out(told)
                episode = _episode(query, readable, best)
                query = _converse(console, engine, opened, episode, approval, chosen)


def _converse(
    console: Console, engine: Engine, opened: OpenTools, episode: Episode, approval: Approval, chosen: ChosenStrategy
) -> str | None:
    """One conversation; returns the first line of the next, or None if the user has had enough."""
    from alpha_umi.agent import run_one
    from alpha_umi.display import agent_display

    show = agent_display(console)
    try:
        while True:
            outcome = run_one(
                engine, episode, chosen.limits, chosen.sampling, on_event=show, keep=True, approval=approval,
                repair=True, runner=opened.runner, strategy=chosen.strategy,
            )  # fmt: skip
            reason = outcome.stop_reason.value
            if reason not in ("answered", "gave_up"):
                console.print(f"the conversation ends here ({reason}); the next line starts a new one")
                return _ask(console)
            query = _ask(console)
            if query is None:
                return None
            episode.follow_up(query)
    finally:
        engine.forget([episode.session])


def _ask(console: Console) -> str | None:
    try:
        return console.input("[bold]       you[/]  ").strip() or None
    except EOFError:
        return None
