"""`umi eval judge`: pass, win, and the panel that says how far the judge can be trusted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.cli.options import terminal
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from alpha_umi.judges.asking import Asker
    from alpha_umi.judges.config import JudgeFile
    from alpha_umi.judges.passing import OnDone, Progress
    from alpha_umi.judges.report import Plan

    Work = Callable[[Asker, Progress], Awaitable[Any]]

app = typer.Typer(no_args_is_help=True, help="Judge answers as ToolEval does: pass, win, and how good the judge is.")

AnswersOf = Annotated[
    list[str],
    typer.Option(
        "--answers",
        help="NAME=PATH of a system's answers: ToolEval's converted .json, trajectories .jsonl, or a folder with one "
        "file a test set; repeatable.",
    ),
]
JudgeOption = Annotated[
    Path | None, typer.Option("--judge", help="A YAML file of the endpoint that judges (docs/judging.md).")
]
ModeOption = Annotated[str, typer.Option("--mode", help="fixed | compat (as published, defects included).")]
IdsOption = Annotated[
    Path | None,
    typer.Option(
        "--ids", help="The test set's query ids (a JSON file, or a folder with one a set); others don't count."
    ),
]
Votes = Annotated[int, typer.Option(min=1, help="Judgements an answer, or a pair (each in both orders, if fixed).")]
TemplatesOption = Annotated[
    Path | None,
    typer.Option("--templates", help="A folder with ToolEval's config.yaml and template.txt, in place of our wording."),
]
CacheOption = Annotated[
    Path, typer.Option("--cache", help="Where replies are kept; a command that was stopped goes on from them.")
]
PanelOption = Annotated[
    Path | None, typer.Option("--panel", help="What `umi eval judge panel --json` found out about this judge.")
]
Seed = Annotated[
    int | None, typer.Option(help="Of the judge's sampling, of draws and intervals [0; compat draws the order anew].")
]
EstimateOption = Annotated[bool, typer.Option("--estimate", help="Only say what it would cost.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Write figures and verdicts there.")]
ResultsOption = Annotated[
    Path | None,
    typer.Option("--results", help="Mode compat: write StableToolBench's own result files into this folder."),
]
_KEPT = Path("judge-replies.sqlite")


@app.command("pass")
def judge_pass(
    answers: AnswersOf,
    judge: JudgeOption = None,
    checker: Annotated[
        str | None,
        typer.Option(help="In place of a judge: recorded | toolworld | a .json file of facts or labels."),
    ] = None,
    mode: ModeOption = "fixed",
    ids: IdsOption = None,
    votes: Votes = 3,
    templates: TemplatesOption = None,
    cache: CacheOption = _KEPT,
    panel: PanelOption = None,
    seed: Seed = None,
    estimate: EstimateOption = False,
    results: ResultsOption = None,
    json_out: JsonOut = None,
) -> None:
    """Does each answer solve its query? Solved, Unsolved, or Unsure and then a look at the whole run."""
    from alpha_umi.judges.published import write_pass_results
    from alpha_umi.judges.report import pass_report
    from alpha_umi.judges.tables import pass_table

    plan = _plan(answers, mode, ids, votes, seed, results)
    if checker is not None:
        if judge is not None or plan.mode != "fixed":
            raise UserError("--checker decides without a judge: leave out --judge and --mode compat")
        _checked(checker, plan, json_out)
        return
    judging = _Judging(judge, templates, cache, seed, json_out)

    async def work(asker: Asker, progress: Progress) -> Any:
        return await pass_report(asker, plan, progress)

    if estimate:
        judging.estimate(work)
        return
    head = {"mode": plan.mode, "votes": votes, "seed": plan.seed}
    labels = judging.run(work, head, panel, pass_table)
    if results is not None:
        write_pass_results(results, plan.systems, labels)


@app.command("win")
def judge_win(
    answers: AnswersOf,
    reference: Annotated[str, typer.Option(help="Which of the systems the others are compared with.")],
    judge: JudgeOption = None,
    labels: Annotated[
        Path | None, typer.Option(help="Verdicts of `umi eval judge pass --json`; without, they are made now.")
    ] = None,
    mode: ModeOption = "fixed",
    ids: IdsOption = None,
    votes: Votes = 3,
    templates: TemplatesOption = None,
    cache: CacheOption = _KEPT,
    panel: PanelOption = None,
    seed: Seed = None,
    estimate: EstimateOption = False,
    results: ResultsOption = None,
    json_out: JsonOut = None,
) -> None:
    """Which system's answer is better, query by query? The better label; between equals, what the judge prefers."""
    from alpha_umi.judges.published import write_win_results
    from alpha_umi.judges.report import read_labels, win_report
    from alpha_umi.judges.tables import win_table

    plan = _plan(answers, mode, ids, votes, seed, results, reference)
    if labels is not None and plan.mode != "fixed":
        raise UserError("--labels is for --mode fixed: the published procedure judges every answer anew")
    known = None if labels is None else read_labels(labels, plan)
    judging = _Judging(judge, templates, cache, seed, json_out)

    async def work(asker: Asker, progress: Progress) -> Any:
        return await win_report(asker, plan, known, progress)

    if estimate:
        judging.estimate(work)
        return
    head = {"mode": plan.mode, "votes": votes, "seed": plan.seed}
    verdicts = judging.run(work, head, panel, win_table)
    if results is not None:
        write_win_results(results, reference, verdicts, votes)


@app.command("panel")
def judge_panel(
    answers: AnswersOf,
    truth: Annotated[
        str, typer.Option(help="What is right: recorded (by `umi eval live`) | toolworld | a .json of facts or labels.")
    ],
    judge: JudgeOption = None,
    votes: Annotated[int, typer.Option(min=1, help="Judgements an answer.")] = 1,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs to compare, at most; two systems are needed.")] = 200,
    templates: TemplatesOption = None,
    cache: CacheOption = _KEPT,
    seed: Seed = None,
    estimate: EstimateOption = False,
    json_out: JsonOut = None,
) -> None:
    """How good is the judge? Accuracy, kappa and position bias on answers that are known to be right or wrong."""
    from alpha_umi.judges.panel import known_answers, measure
    from alpha_umi.judges.tables import panel_table

    plan = _plan(answers, "fixed", None, votes, seed)
    known = known_answers(truth, plan.systems, plan.ids)
    judging = _Judging(judge, templates, cache, seed, json_out)

    async def work(asker: Asker, progress: Progress) -> Any:
        return await measure(asker, known, votes, pairs, seed or 0, progress), None

    if estimate:
        judging.estimate(work)
    else:
        judging.run(work, {"votes": votes, "seed": seed or 0}, None, panel_table)


# ---- what the verbs share -----------------------------------------------------------------------------------------


def _plan(
    answers: list[str], mode: str, ids: Path | None, votes: int, seed: int | None,
    results: Path | None = None, reference: str | None = None,
) -> Plan:  # fmt: skip
    from alpha_umi.judges.report import make_plan
    from alpha_umi.judges.verdicts import Mode

    if mode not in set(Mode):
        raise UserError(f"--mode {mode}: give fixed or compat")
    if results is not None and mode != Mode.COMPAT:
        raise UserError("--results writes the published procedure's files: it goes with --mode compat")
    systems: dict[str, Path] = {}
    for text in answers:
        name, found, path = text.partition("=")
        name, path = (name, Path(path)) if found else (Path(text).stem, Path(text))
        if name in systems:
            raise UserError(f"--answers {text}: there is a system {name} already; name it otherwise, NAME=PATH")
        systems[name] = path
    if reference is not None:
        if reference not in systems or len(systems) < 2:
            raise UserError(f"--reference {reference}: name one of at least two systems, here {', '.join(systems)}")
        systems = {reference: systems[reference], **systems}
    return make_plan(systems, ids, Mode(mode), votes, 0 if seed is None and mode == Mode.FIXED else seed)


def _checked(checker: str, plan: Plan, json_out: Path | None) -> None:
    from alpha_umi.judges.checkers import open_checker
    from alpha_umi.judges.report import checked_report
    from alpha_umi.judges.tables import pass_table

    figures, labels = checked_report(open_checker(checker), plan)
    _finish({"mode": plan.mode, "checker": checker, **figures}, labels, json_out, pass_table)


@dataclass(frozen=True)
class _Judging:
    """A judge that is opened for one command."""

    judge: Path | None
    templates: Path | None
    cache: Path
    seed: int | None
    json_out: Path | None

    def run(self, work: Work, head: dict[str, Any], panel: Path | None, table: Callable[[Any], Table]) -> Any:
        """Judges, writes and shows the figures; returns the verdicts."""
        from alpha_umi.display import bars
        from alpha_umi.judges.cache import ReplyCache
        from alpha_umi.judges.judge import run_with
        from alpha_umi.judges.report import read_panel

        asker, file = self._asker()
        measured = None if panel is None else read_panel(panel, asker)
        named = {"judge": asker.judge.name, "fingerprint": asker.judge.fingerprint}
        named["wording"] = asker.templates.fingerprint
        with ReplyCache(self.cache) as asker.cache, bars(terminal(stderr=True)) as shown:
            figures, verdicts = run_with(asker.judge, lambda: work(asker, _shown(shown.update)))
        cost = {**asker.cost.to_json(file.price), "unreadable": asker.unreadable}
        trust = {} if verdicts is None else {"panel": measured}
        figures = {**head, **named, **trust, **figures, "cost": cost}
        _finish(figures, verdicts, self.json_out, table)
        sent = asker.spent.to_json(file.price)
        terminal(stderr=True).print(f"sent now: {_words(sent)}; {asker.unreadable} replies could not be read")
        if measured is None and verdicts is not None:
            terminal(stderr=True).print(
                "this judge is not measured: `umi eval judge panel`, then --panel", style="yellow"
            )
        return verdicts

    def estimate(self, work: Work) -> None:
        """Says what it would cost, in requests, tokens and money."""
        from alpha_umi.judges.cache import ReplyCache
        from alpha_umi.judges.estimate import estimate
        from alpha_umi.judges.passing import quietly
        from alpha_umi.trajectory import write_json

        asker, file = self._asker()
        with ReplyCache(self.cache if self.cache.exists() else None) as asker.cache:
            bills = [one.spent.to_json(file.price) for one in estimate(asker, lambda one: work(one, quietly))]
        for name, bill in zip(("at least", "at most"), bills, strict=True):
            terminal().print(f"{name}: {_words(bill)}", highlight=False)
        if self.json_out is not None:
            write_json(self.json_out, {"estimate": {"least": bills[0], "most": bills[1]}})

    def _asker(self) -> tuple[Asker, JudgeFile]:
        from alpha_umi.judges.asking import Asker
        from alpha_umi.judges.config import load_judge_file
        from alpha_umi.judges.judge import EndpointJudge
        from alpha_umi.judges.questions import load_templates

        if self.judge is None:
            raise UserError("give --judge FILE, a YAML file of the endpoint that judges (docs/judging.md)")
        file = load_judge_file(self.judge)
        return Asker(EndpointJudge(file), load_templates(self.templates), seed=self.seed or 0), file


def _shown(update: Callable[[str, int, int], None]) -> Progress:
    def begun(name: str, total: int) -> OnDone:
        done = iter(range(1, total + 1))
        return lambda: update(name, next(done), total)

    return begun


def _words(bill: dict[str, Any]) -> str:
    money = f", cost {bill['money']:.2f}" if "money" in bill else ""
    return f"{bill['asked']} requests, {bill['prompt_tokens']} + {bill['completion_tokens']} tokens{money}"


def _finish(figures: dict[str, Any], verdicts: Any, json_out: Path | None, table: Callable[[Any], Table]) -> None:
    from alpha_umi.trajectory import write_json

    if json_out is not None:
        told = {} if verdicts is None else {"verdicts": _plain(verdicts)}
        write_json(json_out, {**figures, **told})
    terminal().print(table(figures))


def _plain(verdicts: Any) -> Any:
    """Verdicts, however deep they lie, as JSON."""
    if isinstance(verdicts, dict):
        return {name: _plain(value) for name, value in verdicts.items()}
    return verdicts.to_json()
