"""What the oracle writes: rationales that carry the plan, answers, questions and refusals.

Each is composed from the state: which tool, which arguments, what came of the last call. Nothing in the wording is left
to chance, so a small model need not learn what can't be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alpha_umi.toolworld.catalogue import SLOT, WRITING, Api, Field, Param
from alpha_umi.toolworld.grammar import imperative, spoken

_ACTS = WRITING | {"convert"}
NEGATIONS = ("no", "not", "none", "nothing")
_FAILED = {
    "timeout": "timed out",
    "server_error": "had a server error",
    "unavailable": "is unavailable",
    "not_authorised": "is not authorised",
}
_NOTHING = "No tool here can do that."
Arguments = Mapping[str, Any]
Observation = Mapping[str, Any]


@cache
def slots(template: str) -> frozenset[str]:
    """Names of a template's slots."""
    return frozenset(name for _, name in SLOT.findall(template))


def is_empty(observation: Observation) -> bool:
    """Whether a call found nothing."""
    return "error" in observation or observation.get("results") == []


def needs(api: Api, arguments: Arguments) -> str:
    """Every parameter in schema order with what it gets: ``hotel Tamiro, date (not given), guests (optional)``."""
    return ", ".join(f"{param.name} {_filled(param, arguments)}" for param in api.params)


def _filled(param: Param, arguments: Arguments) -> str:
    if param.name in arguments:
        return _plain(arguments[param.name])
    return "(not given)" if param.required else "(optional)"


@dataclass(frozen=True)
class Wish:
    """One request: the API that meets it, its words in the instruction, and the arguments of the call."""

    api: Api
    request: str
    arguments: Arguments

    @property
    def said(self) -> str:
        """What the user wants: ``the price of Tamiro``, ``to book a room in Tamiro``."""
        return f"to {imperative(self.api, self.request)}" if self.api.op in _ACTS else self.request

    @property
    def needed(self) -> str:
        """What the user wants, and what has to be done for it in the words of the API's description."""
        return f"{self.said}, so I need to {lowered(self.api.about)}."

    @property
    def goal(self) -> str:
        """The same as something to do: ``find the price of Tamiro``."""
        return imperative(self.api, self.request) if self.api.op in _ACTS else f"find {self.request}"


def opening(turn: int, turns: int) -> str:
    """How the plan for the turn with this number begins: it tells whether there is more to come."""
    if turns == 1:
        return "The user wants"
    return f"{'First' if turn == 0 else 'Last' if turn == turns - 1 else 'Next'}, the user wants"


def plan(wishes: Sequence[Wish], opens: str) -> str:
    """Which calls come next and with which arguments.

    The request in the user's words, then the words of the tool that meets it, then its name: a causal model finds a
    name by the description that stands before it, or sees that there is none.
    """
    parts = [f"{w.needed} {w.api.name} needs {needs(w.api, w.arguments)}." for w in wishes]
    return f"{opens if len(parts) == 1 else 'At once, the user wants'} " + " Also, the user wants ".join(parts)


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
    return f"{api.name} {_FAILED[kind]}, so I call it again. {api.name} needs {needs(api, arguments)}."


def alternative(api: Api, other: Api, arguments: Arguments, kind: str) -> str:
    """Why another tool is called in its place."""
    return f"{_failure(api, kind)}, so I need the {lowered(other.about)}. {other.name} needs {needs(other, arguments)}."


def blocked(api: Api, kind: str) -> tuple[str, str]:
    """Why nothing helps, and what the user is told."""
    rationale = f"{_failure(api, kind)}, so I need the same as {api.name}, if that fails. {_NOTHING}"
    return rationale, f"Sorry, {api.name} {_FAILED[kind]}, so I could not {lowered(api.about)}."


def _failure(api: Api, kind: str) -> str:
    return f"{api.name} {_FAILED[kind]}" + ("" if kind == "not_authorised" else " again")


def impossible(wish: Wish, opens: str) -> tuple[str, str]:
    """Why no tool fits, and what the user is told."""
    return f"{opens} {wish.needed} {_NOTHING}", f"Sorry, I have no tool to {wish.goal}."


def missing(wish: Wish, field: Field, opens: str) -> tuple[str, str]:
    """Why the user has to be asked, and the question; the wish has the arguments that the instruction does say."""
    return plan([wish], opens), f"Which {field.words} should I use?"


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
