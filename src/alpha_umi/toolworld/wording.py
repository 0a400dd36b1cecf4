"""What the oracle writes: rationales that carry the plan, answers, questions and refusals, in a few variants each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

from alpha_umi.toolworld.catalogue import SLOT, WRITING, Api, Field
from alpha_umi.toolworld.grammar import fill, imperative, segments, spoken

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
    parts = [f"{name} {_plain(value)}" for name, value in arguments.items()]
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def plan(rng: Random, apis: Sequence[Api], arguments: Sequence[Arguments], at_start: bool) -> str:
    """Which calls come next and with which arguments."""
    if len(apis) > 1:
        calls = "; ".join(f"{a.name} with {needs(v)}" for a, v in zip(apis, arguments, strict=True))
        return rng.choice((f"The user wants it at once: {calls}.", f"I can do this at once: {calls}."))
    api, goal, values = apis[0], lowered(apis[0].about), needs(arguments[0])
    if at_start:
        return rng.choice(
            (f"The user wants to {goal}. {api.name} needs {values}.", f"To {goal}, {api.name} needs {values}.")
        )
    return rng.choice((f" Next, to {goal}, {api.name} needs {values}.", f" Then {goal}: {api.name} needs {values}."))


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


def finished(rng: Random, empty: bool) -> str:
    """Why the user gets an answer now."""
    if empty:
        return rng.choice((" I tell the user so.", " So I can only say that."))
    return rng.choice((" Everything asked is known.", " So I can answer."))


def retry(rng: Random, api: Api, arguments: Arguments, kind: str) -> str:
    """Why the same call is made again."""
    again = rng.choice(("I try it once more", "I call it again"))
    return f"{api.name} {_FAILED[kind]}, so {again} with {needs(arguments)}."


def alternative(rng: Random, api: Api, other: Api, arguments: Arguments, kind: str) -> str:
    """Why another tool is called in its place."""
    link = rng.choice(("but", "and"))
    return f"{_failure(api, kind)}, {link} {other.name} does the same. It needs {needs(arguments)}."


def blocked(rng: Random, api: Api, kind: str) -> tuple[str, str]:
    """Why nothing helps, and what the user is told."""
    end = rng.choice(("so I give up", "so I have to stop"))
    rationale = f"{_failure(api, kind)} and no other tool does the same, {end}."
    return rationale, f"Sorry, {api.name} {_FAILED[kind]}, so I could not {lowered(api.about)}."


def _failure(api: Api, kind: str) -> str:
    return f"{api.name} {_FAILED[kind]}" + ("" if kind == "not_authorised" else " again")


def impossible(rng: Random, apis: Sequence[Api], requests: Sequence[str]) -> tuple[str, str]:
    """Why no tool fits, and what the user is told."""
    pairs = list(zip(apis, requests, strict=True))
    acts = WRITING | {"convert"}
    wants = " and ".join(f"to {imperative(api, text)}" if api.op in acts else text for api, text in pairs)
    goals = " or ".join(imperative(api, text) if api.op in acts else f"find {text}" for api, text in pairs)
    end = rng.choice(("but none of the tools does that", "but no tool here can do that"))
    return f"The user wants {wants}, {end}.", f"Sorry, I have no tool to {goals}."


def missing(rng: Random, api: Api, field: Field) -> tuple[str, str]:
    """Why the user has to be asked, and the question."""
    goal = lowered(api.about)
    lack = rng.choice(("which the user did not give", "which is missing"))
    return f"The user wants to {goal}. {api.name} needs {field.name}, {lack}.", f"Which {field.words} should I use?"


def answer(api: Api, arguments: Arguments, observation: Observation) -> str:
    """The sentence that reports a call's result."""
    if "error" in observation:
        return f"There is {observation['error']}."
    if observation.get("results") == []:
        name, value = next(iter(arguments.items()))
        return f"There is no {api.record} with {name.replace('_', ' ')} {spoken(value)}."
    values = {name: spoken(value) for name, value in {**arguments, **observation}.items()}
    kept = [piece for piece in segments(api.answer) if not piece.optional or set(piece.slots) <= values.keys()]
    return fill("".join(piece.text for piece in kept), values)


def lowered(sentence: str) -> str:
    """A sentence's words for use within another."""
    return sentence[:1].lower() + sentence[1:]
