"""What the oracle writes: rationales that carry the plan, answers, questions and refusals.

Each is composed from the state: which tool, which arguments, what came of the last call. Nothing in the wording is left
to chance, so a small model need not learn what can't be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from alpha_umi.toolworld.catalogue import SLOT, WRITING, Api, Field
from alpha_umi.toolworld.grammar import imperative, spoken

NEGATIONS = ("no", "not", "none", "nothing")
_FAILED = {
    "timeout": "timed out",
    "server_error": "had a server error",
    "unavailable": "is unavailable",
    "not_authorised": "is not authorised",
}
Arguments = Mapping[str, Any]
Observation = Mapping[str, Any]


@cache
def slots(template: str) -> frozenset[str]:
    """Names of a template's slots."""
    return frozenset(name for _, name in SLOT.findall(template))


def is_empty(observation: Observation) -> bool:
    """Whether a call found nothing."""
    return "error" in observation or observation.get("results") == []


def needs(arguments: Arguments) -> str:
    """Arguments as a rationale restates them: ``hotel Tamiro and date 2026-03-14``."""
    return _joined([f"{name} {_plain(value)}" for name, value in arguments.items()])


def plan(apis: Sequence[Api], arguments: Sequence[Arguments], at_start: bool) -> str:
    """Which calls come next and with which arguments."""
    if len(apis) > 1:
        calls = "; ".join(f"{a.name} needs {needs(v)}" for a, v in zip(apis, arguments, strict=True))
        return f"The user wants it at once. {calls}."
    goal = f"{lowered(apis[0].about)}. {apis[0].name} needs {needs(arguments[0])}."
    return f"The user wants to {goal}" if at_start else f" Next, {goal}"


def outcome(results: Sequence[tuple[Api, Observation]]) -> str:
    """What the last turn's calls gave; empty at the start."""
    if len(results) > 1:
        empty = next((api.name for api, observation in results if is_empty(observation)), None)
        return f"{empty} found nothing." if empty else "Both calls gave a result."
    return "".join(f"{api.name} {_given(observation)}." for api, observation in results)


def _given(observation: Observation) -> str:
    if is_empty(observation):
        return "found nothing"
    if "results" in observation:
        return "found " + spoken(observation["results"])
    return "gave " + ", ".join(f"{name} {_plain(value)}" for name, value in observation.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return spoken(value)


def finished(empty: bool) -> str:
    """Why the user gets an answer now."""
    return " I tell the user so." if empty else " So I can answer."


def retry(api: Api, arguments: Arguments, kind: str) -> str:
    """Why the same call is made again."""
    return f"{api.name} {_FAILED[kind]}, so I call it again. {api.name} needs {needs(arguments)}."


def alternative(api: Api, other: Api, arguments: Arguments, kind: str) -> str:
    """Why another tool is called in its place."""
    return f"{_failure(api, kind)}, but {other.name} does the same. {other.name} needs {needs(arguments)}."


def blocked(api: Api, kind: str) -> tuple[str, str]:
    """Why nothing helps, and what the user is told."""
    rationale = f"{_failure(api, kind)} and no other tool does the same, so I give up."
    return rationale, f"Sorry, {api.name} {_FAILED[kind]}, so I could not {lowered(api.about)}."


def _failure(api: Api, kind: str) -> str:
    return f"{api.name} {_FAILED[kind]}" + ("" if kind == "not_authorised" else " again")


def impossible(apis: Sequence[Api], requests: Sequence[str]) -> tuple[str, str]:
    """Why no tool fits, and what the user is told."""
    pairs = list(zip(apis, requests, strict=True))
    acts = WRITING | {"convert"}
    wants = " and ".join(f"to {imperative(api, text)}" if api.op in acts else text for api, text in pairs)
    goals = " or ".join(imperative(api, text) if api.op in acts else f"find {text}" for api, text in pairs)
    return f"The user wants {wants}, but no tool here can do that.", f"Sorry, I have no tool to {goals}."


def missing(api: Api, field: Field, given: Arguments) -> tuple[str, str]:
    """Why the user has to be asked, and the question; ``given`` is what the instruction does say."""
    values = {p.name: given.get(p.name, "(not given)") for p in api.params if p.name in given or p.name == field.name}
    rationale = f"The user wants to {lowered(api.about)}. {api.name} needs {needs(values)}."
    return rationale, f"Which {field.words} should I use?"


def answer(api: Api, arguments: Arguments, observation: Observation) -> str:
    """The sentence that reports a call's result."""
    if "error" in observation:
        return f"There is {observation['error']}."
    if observation.get("results") == []:
        name, value = next(iter(arguments.items()))
        return f"There is no {api.record} with {name.replace('_', ' ')} {spoken(value)}."
    if "results" in observation:
        return f"I found {spoken(observation['results'])}."
    facts = [(name.replace("_", " "), _plain(value)) for name, value in observation.items()]
    if api.op in WRITING:
        return f"Done: {_joined([f'{name} {value}' for name, value in facts])}."
    (name, value), *rest = facts
    of = spoken(next(iter(arguments.values())))
    return f"The {_joined([f'{name} of {of} is {value}', *(f'the {name} is {value}' for name, value in rest)])}."


def _joined(parts: Sequence[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def lowered(sentence: str) -> str:
    """A sentence's words for use within another."""
    return sentence[:1].lower() + sentence[1:]
