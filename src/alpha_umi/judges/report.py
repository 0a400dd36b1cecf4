"""Judges systems on test sets and puts the figures together, set by set and on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpha_umi.errors import DataError, UserError
from alpha_umi.judges.aggregate import (
    average_rate,
    pass_difference,
    pass_figures,
    published_pass_figures,
    published_votes,
    published_win_figures,
    published_wins,
    win_figures,
)
from alpha_umi.judges.answers import Answers, read_ids, read_object, read_sets
from alpha_umi.judges.asking import Asker
from alpha_umi.judges.checkers import Checker, check_answers
from alpha_umi.judges.passing import PassVerdicts, Progress, judge_pass
from alpha_umi.judges.verdicts import Mode, PassVerdict, WinVerdict
from alpha_umi.judges.winning import judge_win, judge_win_as_published

Sets = Mapping[str, Answers]
Labels = Mapping[str, Mapping[str, PassVerdicts]]
"""Verdicts by test set and system."""

_AVERAGED = ("win_rate", "tie_rate", "lose_rate", "preference")


@dataclass(frozen=True)
class Plan:
    """What is judged, and how.

    Attributes:
        systems: Each system's answers by test set, in the order of the tables; the first is the reference.
        ids: The queries of each test set.
        mode: Which procedure.
        votes: Judgements an answer, or a pair.
        seed: Of intervals, and of what the published procedure draws; None draws that anew, as published.
    """

    systems: Mapping[str, Sets]
    ids: Mapping[str, Sequence[str]]
    mode: Mode = Mode.FIXED
    votes: int = 3
    seed: int | None = 0

    @property
    def figures_seed(self) -> int:
        """The seed of intervals."""
        return self.seed or 0


def make_plan(systems: Mapping[str, Path], ids: Path | None, mode: Mode, votes: int, seed: int | None) -> Plan:
    """Reads the answers and finds out which queries there are: those of ``ids``, or all that any system answers.

    Args:
        systems: A file, or a folder with a file a test set, by the system's name.
        ids: A file of query ids, or a folder with one a test set.
        mode: Which procedure.
        votes: Judgements an answer, or a pair.
        seed: See `Plan`.

    Raises:
        UserError: A file is wrong, or the systems have no test set in common.
    """
    single = all(path.is_file() for path in systems.values())
    read = {name: read_sets(path) for name, path in systems.items()}
    if single and len(systems) > 1:  # files of several systems are one test set, whatever they are called
        first = next(iter(next(iter(read.values()))))
        read = {name: {first: next(iter(sets.values()))} for name, sets in read.items()}
    common = [name for name in next(iter(read.values())) if all(name in sets for sets in read.values())]
    if not common:
        raise UserError(f"the systems {', '.join(read)} have no test set of the same name in common")
    queries = {
        name: list(dict.fromkeys(query for sets in read.values() for query in sets[name]))
        if ids is None
        else read_ids(ids / f"{name}.json" if ids.is_dir() else ids)
        for name in common
    }
    empty = next((name for name, found in queries.items() if not found), None)
    if empty is not None:
        raise UserError(f"the test set {empty} has no query")
    return Plan(read, queries, mode, votes, seed)


async def pass_report(asker: Asker, plan: Plan, progress: Progress) -> tuple[dict[str, Any], Labels]:
    """Judges every answer; the figures, and the verdicts they come from."""
    labels = {
        name: {
            system: await judge_pass(
                asker, system, sets[name], ids, plan.mode, plan.votes, progress(f"pass {name} {system}", len(ids))
            )
            for system, sets in plan.systems.items()
        }
        for name, ids in plan.ids.items()
    }
    return pass_tables(plan, labels), labels


def checked_report(checker: Checker, plan: Plan) -> tuple[dict[str, Any], Labels]:
    """The same by a checker, without a judge."""
    labels = {
        name: {system: check_answers(checker, system, sets[name], list(ids)) for system, sets in plan.systems.items()}
        for name, ids in plan.ids.items()
    }
    return pass_tables(plan, labels), labels


def pass_tables(plan: Plan, labels: Labels) -> dict[str, Any]:
    """Figures of each set and system, and the systems' averages; differences are to the first system."""
    first, *others = plan.systems
    if plan.mode is Mode.COMPAT:
        tables = {
            name: {system: _published_pass(found, plan.votes) for system, found in systems.items()}
            for name, systems in labels.items()
        }
        rates = {system: [tables[name][system]["pass_rate"] for name in tables] for system in plan.systems}
        return {"sets": tables, "average": {system: sum(one) / len(one) for system, one in rates.items()}}
    seed = plan.figures_seed
    return {
        "sets": {
            name: {system: pass_figures(found, seed) for system, found in systems.items()}
            for name, systems in labels.items()
        },
        "differences": {
            name: {other: pass_difference(systems[first], systems[other], seed) for other in others}
            for name, systems in labels.items()
        },
        "average": {
            system: average_rate([[v.score for v in systems[system].values()] for systems in labels.values()], seed)
            for system in plan.systems
        },
    }


def _published_pass(verdicts: PassVerdicts, rounds: int) -> dict[str, Any]:
    if not verdicts:
        raise UserError("no query of a test set is answered; the published procedure has no rate for that")
    return published_pass_figures(published_votes(verdicts), rounds)


async def win_report(
    asker: Asker, plan: Plan, labels: Labels | None, progress: Progress
) -> tuple[dict[str, Any], dict[str, dict[str, dict[str, WinVerdict]]]]:
    """Compares every system with the first; the figures, and the verdicts by test set and candidate."""
    first, *others = plan.systems
    verdicts: dict[str, dict[str, dict[str, WinVerdict]]] = {}
    for name, ids in plan.ids.items():
        verdicts[name] = {}
        for other in others:
            sides = (first, plan.systems[first][name]), (other, plan.systems[other][name])
            on_done = progress(f"win {name} {other}", len(ids))
            if plan.mode is Mode.COMPAT:
                found = await judge_win_as_published(asker, *sides, ids, plan.votes, plan.seed, on_done)
            else:
                known = None if labels is None else (labels[name][first], labels[name][other])
                found = await judge_win(asker, *sides, ids, plan.votes, known, on_done)
            verdicts[name][other] = found
    return win_tables(plan, verdicts), verdicts


def win_tables(plan: Plan, verdicts: Mapping[str, Mapping[str, Mapping[str, WinVerdict]]]) -> dict[str, Any]:
    """Figures of each set and candidate, and the candidates' averages."""
    first, *others = plan.systems
    if plan.mode is Mode.COMPAT:
        tables = {
            name: {other: published_win_figures(published_wins(found)) for other, found in candidates.items()}
            for name, candidates in verdicts.items()
        }
        average = {
            other: {key: sum(one[other][key] for one in tables.values()) / len(tables) for key in _AVERAGED[:3]}
            for other in others
        }
        return {"reference": first, "sets": tables, "average": average}
    seed = plan.figures_seed
    return {
        "reference": first,
        "sets": {
            name: {other: win_figures(found, seed) for other, found in candidates.items()}
            for name, candidates in verdicts.items()
        },
        "average": {
            other: {
                key: average_rate(
                    [[_counts(verdict, key) for verdict in one[other].values()] for one in verdicts.values()], seed
                )
                for key in _AVERAGED
            }
            for other in others
        },
    }


def _counts(verdict: WinVerdict, key: str) -> float:
    return verdict.score if key == "preference" else float(f"{verdict.outcome}_rate" == key)


def read_labels(path: Path, plan: Plan) -> Labels:
    """The verdicts in what `umi eval judge pass --json` wrote.

    Raises:
        DataError: It lacks one that the plan needs, or is of the other mode.
    """
    content = read_object(path)
    if content.get("mode") != Mode.FIXED:
        raise DataError(path, "these are not verdicts of --mode fixed, as `umi eval judge pass --json` writes them")
    found: dict[str, dict[str, dict[str, PassVerdict]]] = {}
    for name, ids in plan.ids.items():
        found[name] = {}
        for system in plan.systems:
            try:
                given = content["verdicts"][name][system]
                found[name][system] = {query: PassVerdict.from_json(query, given[query]) for query in ids}
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(path, f"no verdict on {system} in {name}: {error}") from error
    return found


def read_panel(path: Path, asker: Asker) -> dict[str, Any]:
    """What a panel found out about this very judge.

    Raises:
        DataError: It is of another judge, or of other words; its figures say nothing about this one.
    """
    content = read_object(path)
    if (content.get("fingerprint"), content.get("wording")) != (asker.judge.fingerprint, asker.templates.fingerprint):
        raise DataError(path, "it measured another judge (model, sampling or wording); run the panel with this one")
    return content
