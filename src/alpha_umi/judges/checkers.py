"""Verdicts without a judge, where the world allows: by the facts an answer has to hold, and the state a run leaves.

recorded     what `umi eval live` wrote beside each episode
toolworld    the run's calls made again in its ToolWorld, then ToolWorld's own check of facts and state
FILE.json    ``{"facts": {query_id: [fact, [fact, in other words], …]}}``: every fact is in the answer; or
             ``{"labels": {system: {query_id: true}}}``: what people decided
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.errors import DataError, ToolError, UserError
from alpha_umi.judges.answers import FINISH, Answer, Answers, called, read_object
from alpha_umi.judges.verdicts import Basis, PassVerdict, Status

if TYPE_CHECKING:
    from alpha_umi.toolworld import World

Checker = Callable[[str, Answer], "bool | None"]
"""Whether a system's answer solves its query; None if it can't tell."""


class _Truth(BaseModel):
    model_config = ConfigDict(extra="forbid")
    facts: dict[str, list[str | list[str]]] = {}
    labels: dict[str, dict[str, bool]] = {}


def open_checker(name: str) -> Checker:
    """The checker of this name, or by a file of facts or labels.

    Raises:
        UserError: There is none of this name, or the file is not one.
    """
    if name == "recorded":
        return lambda system, answer: answer.solved
    if name == "toolworld":
        return lambda system, answer: replayed_in_toolworld(answer)
    path = Path(name)
    if path.suffix != ".json":
        raise UserError(f"checker {name}: give recorded, toolworld, or a .json file of facts or labels")
    try:
        truth = _Truth.model_validate(read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return lambda system, answer: _by_file(truth, system, answer)


def check_answers(checker: Checker, system: str, answers: Answers, ids: list[str]) -> dict[str, PassVerdict]:
    """A checker's verdicts on one system's answers; a query without an answer is Unsolved.

    Raises:
        UserError: The checker can't tell of an answer; names the query.
    """
    found: dict[str, PassVerdict] = {}
    for name in ids:
        if name not in answers:
            found[name] = PassVerdict(name, Basis.MISSING, (Status.UNSOLVED,))
            continue
        solved = checker(system, answers[name])
        if solved is None:
            raise UserError(f"the checker knows nothing of query {name} of {system}; leave it out, or give a judge")
        found[name] = PassVerdict(name, Basis.CHECKER, (Status.SOLVED if solved else Status.UNSOLVED,))
    return found


def truth_of(checker: Checker, system: str, answers: Answers) -> dict[str, bool]:
    """What a checker says of each answer it can tell of."""
    said = {name: checker(system, answer) for name, answer in answers.items()}
    return {name: solved for name, solved in said.items() if solved is not None}


def holds_facts(text: str | None, facts: list[str | list[str]]) -> bool:
    """Whether every fact is in a text, as a whole and in one of its wordings; case and white space don't matter."""
    from alpha_umi.toolworld.checker import contains

    wordings = [[fact] if isinstance(fact, str) else fact for fact in facts]
    return text is not None and all(any(contains(text, word) for word in fact) for fact in wordings)


def replayed_in_toolworld(answer: Answer) -> bool | None:
    """ToolWorld's verdict on a run, its calls made again; None if the query is not one of ToolWorld's tasks.

    Calls that the agent's own check refuses are left out, as they were then.
    """
    from alpha_umi.toolworld import Outcome, World, check, make_task

    try:
        split, seed, index = answer.query_id.rsplit("-", 2)
        task = make_task(split, int(index), int(seed))
    except (ValueError, KeyError):
        return None
    if task.instruction != answer.query:
        return None
    world = World(task)
    for message in answer.calls:
        if isinstance(message, Mapping) and called(message) != FINISH:
            _make(world, message)
    return check(task, world, Outcome(answer.text, answer.gave_up)).solved


def _make(world: World, message: Mapping[str, str]) -> None:
    from alpha_umi.trajectory import ToolCall
    from alpha_umi.validation import check_call

    call = ToolCall("call", message["name"], message["arguments"])
    try:
        world.call(call.name, check_call(call, world.tools))
    except ToolError:
        return


def _by_file(truth: _Truth, system: str, answer: Answer) -> bool | None:
    if answer.query_id in truth.labels.get(system, {}):
        return truth.labels[system][answer.query_id]
    facts = truth.facts.get(answer.query_id)
    return None if facts is None else holds_facts(answer.text, facts)
