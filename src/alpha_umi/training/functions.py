"""Invented functions for the procedural corpus: services that share a name, their fields, and how people ask for them.

A service is a handful of functions whose names begin alike and whose parameters come from one pool, so that which of
them is meant, and with which arguments, is found by reading and in no other way. How a request is worded is left to
chance, since nobody has to predict a request; what follows from it is worded in one way.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alpha_umi.toolworld import load_catalogue
from alpha_umi.training.words import (
    ADJECTIVES,
    NOUNS,
    THINGS,
    VERBS,
    identifier,
    invented,
    letters,
    proper_name,
    reserved,
)

JOINTS = (", ", ", ", " and ", " with ", " for ", " from ", " in ", " by ", " using ")
OPENINGS = (
    "Please", "I want to", "Can you", "I need to", "We have to", "Kindly", "Now", "You should", "Somebody has to",
    "Help me", "Time to", "Let us",
)  # fmt: skip


_ENDINGS = ("ing", "er", "ment", "tion", "al", "ity", "s", "ist", "or", "age", "ery", "ful", "ness", "hood")
_STRANGE = 0.45
"""Share of nouns and verbs that are on no list: a tool that nobody has seen is made of such words."""


def noun(rng: random.Random) -> str:
    """An ordinary noun, or a word that is on no list: an invented one, or a known one with another ending."""
    if rng.random() >= _STRANGE:
        return rng.choice(NOUNS)
    return invented(rng) if rng.random() < 0.6 else _inflected(rng)


def verb(rng: random.Random) -> str:
    """A verb, now and then one that is on no list."""
    return invented(rng) if rng.random() < _STRANGE / 3 else rng.choice(VERBS)


def _inflected(rng: random.Random) -> str:
    word = rng.choice((*NOUNS, *VERBS, *THINGS)) + rng.choice((*_ENDINGS, rng.choice(NOUNS)))
    return invented(rng) if word in reserved() or word in _collections() else word


def number(rng: random.Random) -> float | int:
    """A number of one to four digits, sometimes with decimals."""
    if rng.random() < 0.25:
        return round(rng.uniform(0, 500), rng.choice((1, 2)))
    return rng.randrange(10 ** rng.randint(1, 4))


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1990, 2039)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(0, 60, 5):02d}"


def plural(word: str) -> str:
    """More than one of it: ``city`` gives ``cities``; the word itself where that is an invented word of ToolWorld."""
    if word.endswith("s") and not word.endswith("ss"):
        return word
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        several = word[:-1] + "ies"
    else:
        several = word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")
    return word if several in reserved() else several


def said(value: Any) -> str:
    """A value as it stands in a sentence."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " and ".join([", ".join(value[:-1]), value[-1]]) if len(value) > 1 else value[0]
    return str(value)


@dataclass(frozen=True)
class Field:
    """A named, typed slot: a parameter of a function or a column of a table.

    Attributes:
        name: As in the schema, with underscores.
        kind: ``name``, ``id``, ``date``, ``time``, ``integer``, ``number``, ``boolean``, ``enum`` or ``array``.
        description: Empty if the schema has none.
        choices: Of an ``enum``.
        letters: What every identifier of an ``id`` begins with.
    """

    name: str
    kind: str
    description: str = ""
    choices: tuple[str, ...] = ()
    letters: str = ""

    @property
    def words(self) -> str:
        """The name as people say it."""
        return self.name.replace("_", " ")

    @property
    def type(self) -> str:
        """Its JSON type."""
        return self.kind if self.kind in ("integer", "number", "boolean", "array") else "string"

    def draw(self, rng: random.Random) -> Any:
        """A random value."""
        if self.kind == "enum":
            return rng.choice(self.choices)
        if self.kind == "integer":
            return rng.randrange(1, 10 ** rng.randint(1, 3))
        if self.kind == "boolean":
            return rng.random() < 0.5
        if self.kind == "array":
            return [proper_name(rng) for _ in range(rng.randint(2, 4))]
        if self.kind == "id":
            return identifier(rng, self.letters)
        return {"date": _date, "time": _time, "number": number}.get(self.kind, proper_name)(rng)

    @property
    def schema(self) -> dict[str, Any]:
        """The field as a JSON Schema property."""
        out: dict[str, Any] = {"type": self.type}
        if self.kind == "array":
            out["items"] = {"type": "string"}
        if self.choices:
            out["enum"] = list(self.choices)
        return out | ({"description": self.description} if self.description else {})

    def spoken(self, rng: random.Random, value: Any) -> str:
        """The field with this value as a request may put it."""
        words, text = self.words, said(value)
        if self.kind == "boolean":
            return rng.choice((f"{words}: {text}", f"{words} {text}", f"{'with' if value else 'without'} {words}"))
        ways = [f"the {words} {text}", f"{words} {text}", f"{words} {text}", f"{words}: {text}", f"{text} as {words}"]
        if self.kind == "integer":
            ways += [f"{text} {plural(words)}"] * 3
        if self.kind in ("date", "time"):
            ways += [f"{'on' if self.kind == 'date' else 'at'} {text}"] * 3
        if self.kind == "enum":
            ways += [f"{text} {words}", f"with {text} {words}", f"{words} {text}"]
        if self.kind == "array":
            ways += [f"these {plural(words)}: {text}", f"among {text}"]
        return rng.choice(ways)


def field(rng: random.Random) -> Field:
    """A random field."""
    last = noun(rng) if rng.random() < 0.85 else rng.choice(THINGS)
    name = last if rng.random() < 0.7 else f"{rng.choice((rng.choice(ADJECTIVES), noun(rng)))}_{last}"
    words = name.replace("_", " ")
    kind = rng.choices(
        ("name", "id", "date", "time", "integer", "number", "boolean", "enum", "array"),
        (32, 14, 8, 5, 14, 7, 5, 11, 4),
    )[0]
    if kind in ("id", "date", "time") and rng.random() < 0.6:
        name = f"{name}_{kind}" if rng.random() < 0.8 else kind
    choices: tuple[str, ...] = ()
    if kind == "enum":
        drawn = (rng.choice((rng.choice(ADJECTIVES), noun(rng))) for _ in range(rng.randint(2, 4)))
        choices = tuple(dict.fromkeys(drawn))
    said_so = rng.choice((f"{words} {kind}", f"the {words}", f"{words} wanted", f"{kind} of a {words}"))
    return Field(name, kind, said_so if rng.random() < 0.35 else "", choices, letters(rng) if kind == "id" else "")


def fields(rng: random.Random, count: int) -> list[Field]:
    """Fields with distinct names."""
    out: dict[str, Field] = {}
    while len(out) < count:
        one = field(rng)
        out.setdefault(one.name, one)
    return list(out.values())


def record(rng: random.Random, most: int = 3) -> dict[str, Any]:
    """One to ``most`` random facts."""
    return {one.name: one.draw(rng) for one in fields(rng, rng.randint(1, most))}


@dataclass(frozen=True)
class Function:
    """An invented function.

    Attributes:
        name: Of the service, the verb and the noun.
        verb: What it does ...
        noun: ... with what ...
        subject: ... of what; may be empty.
        about: The phrase its description is.
        params: In schema order.
        required: Names of the parameters that a call can't do without.
    """

    name: str
    verb: str
    noun: str
    subject: str
    about: str
    params: tuple[Field, ...]
    required: tuple[str, ...]

    def schema(self, name_first: bool = False) -> str:
        """Its JSON schema on one line, in the order of `Tool.of` or with the name before the description."""
        head = {"description": f"{self.about[0].upper()}{self.about[1:]}.", "name": self.name}
        parameters = {
            "type": "object",
            "properties": {param.name: param.schema for param in self.params},
            "required": list(self.required),
        }
        ordered = dict(reversed(head.items())) if name_first else head
        return json.dumps(ordered | {"parameters": parameters}, ensure_ascii=False)

    @property
    def signature(self) -> str:
        """The same in short: ``velo_get_price(hotel: string, guests?: integer): get the price of a hotel``."""
        params = ", ".join(
            f"{p.name}{'' if p.name in self.required else '?'}: {'|'.join(p.choices) if p.choices else p.type}"
            for p in self.params
        )
        return f"{self.name}({params}): {self.about}"

    def arguments(self, rng: random.Random, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Arguments in schema order: the ``fixed`` ones, the other required ones and some of the rest at random."""
        fixed = fixed or {}
        return {
            p.name: fixed[p.name] if p.name in fixed else p.draw(rng)
            for p in self.params
            if p.name in fixed or p.name in self.required or rng.random() < 0.4
        }

    def request(
        self, rng: random.Random, given: Mapping[str, Any], verbless: bool = False, that: str | None = None
    ) -> str:
        """What somebody says who wants this, without a full stop.

        Args:
            rng: Chooses the wording.
            given: The arguments said.
            verbless: Whether the verb may be left out, because the noun tells enough.
            that: An argument that is said to come from before.
        """
        of = f"{rng.choice((' of a ', ' of ', ' for this ', ' by '))}{self.subject}" if self.subject else ""
        noun = rng.choice((self.noun, plural(self.noun), self.noun))
        core = rng.choice((
            f"{self.about}", f"{self.about}", f"{self.verb} {noun}{of}", f"{self.verb} some {noun}{of}",
        ))  # fmt: skip
        if verbless and rng.random() < 0.4:
            core = rng.choice((f"{noun}{of}", f"the {noun}{of}", f"{self.subject or 'this'} {noun}"))
            opening = rng.choice(("", "", "I ask for", "Here we need", "Quickly:", "What about"))
        else:
            opening = rng.choice((*OPENINGS, "", ""))
        items = [(p, given[p.name]) for p in self.params if p.name in given]
        rng.shuffle(items)
        parts = [f"that {p.words}" if p.name == that else p.spoken(rng, value) for p, value in items]
        joint = rng.choice(JOINTS)
        tail = rng.choice((" ", ", ", joint)) + joint.join(parts) if parts else ""
        if parts and rng.random() < 0.15 and that is None:
            text = f"{joint.join(parts)}: {core}"
        else:
            text = f"{opening} {core}{tail}".strip()
        return text[0].upper() + text[1:]


_ABOUT = (
    "{verb} the {noun} of a {subject}",
    "{verb} the {noun} of a {subject}",
    "{verb} {nouns} by {subject}",
    "{verb} {nouns} in a {subject}",
    "{verb} a {noun} for a {subject}",
    "{verb} a {noun}",
    "{verb} a {adjective} {noun}",
    "{verb} the {adjective} {noun} of a {subject}",
    "{verb} the {subject} with most {nouns}",
)


@cache
def _collections() -> frozenset[str]:
    """Names that begin a tool's name in ToolWorld, and so never do here."""
    return frozenset(load_catalogue().collections)


def service(rng: random.Random, count: int) -> list[Function]:
    """``count`` functions of one invented service, with distinct names and descriptions."""
    pool = fields(rng, rng.randint(2, 5))
    subjects = [pool[0].words.split()[0], noun(rng)]
    first = rng.choice((invented(rng), invented(rng), rng.choice(NOUNS), subjects[0]))
    second = rng.choice(("", "", invented(rng), rng.choice(NOUNS + THINGS)))
    prefix = first + (second if len(first) + len(second) <= 14 else "")
    while prefix in _collections():
        prefix = invented(rng)
    nouns = [noun(rng) for _ in range(count)]
    if rng.random() < 0.35:
        nouns[-1] = nouns[0]  # the same thing, with another verb
    out: dict[str, Function] = {}
    while len(out) < count:
        thing, does, subject = nouns[len(out)], verb(rng), rng.choice(subjects)
        template = rng.choice(_ABOUT)
        about = template.format(
            verb=does, noun=thing, nouns=plural(thing), subject=subject, adjective=rng.choice(ADJECTIVES)
        )
        chosen = [p for i, p in enumerate(pool) if rng.random() < (1.4 / len(pool) if i else 0.7)]
        params = tuple(chosen or [rng.choice(pool)])[:4]
        required = tuple(p.name for p in params if rng.random() < 0.75) or (params[0].name,)
        name = f"{prefix}_{does}_{rng.choice((thing, thing, plural(thing)))}"
        out.setdefault(
            name, Function(name, does, thing, subject if "{subject}" in template else "", about, params, required)
        )
    return list(out.values())


def services(rng: random.Random, count: int) -> list[Function]:
    """``count`` functions of one to three services, in random order."""
    out: list[Function] = []
    while len(out) < count:
        names = {one.name for one in out}
        size = min(count - len(out), rng.choice((1, 2, 3, 3, 4)))
        out += [one for one in service(rng, size) if one.name not in names]
    return rng.sample(out, len(out))


def distinct(rng: random.Random, count: int) -> list[Function]:
    """``count`` functions of as many services that share no verb and no noun, all of them ordinary words."""
    out: list[Function] = []
    while len(out) < count:
        (one,) = service(rng, 1)
        ordinary = one.noun in NOUNS and one.verb in VERBS and one.subject in ("", *NOUNS)
        if ordinary and not any({one.noun, one.verb, one.subject or None} & {o.noun, o.verb, o.subject} for o in out):
            out.append(one)
    return out


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as a JSON object."""
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


def listed(arguments: Mapping[str, Any]) -> str:
    """Arguments one after another: ``hotel Tamiro, guests 3``."""
    return ", ".join(f"{name} {said(value)}" for name, value in arguments.items())


def tell(facts: Mapping[str, Any]) -> str:
    """Facts as clauses: ``the price is 25, the owner is Tamiro``."""
    return ", ".join(f"the {name.replace('_', ' ')} is {said(value)}" for name, value in facts.items())


def plan_text(functions: Sequence[Function], arguments: Sequence[Mapping[str, Any]]) -> str:
    """What is going to be called, and why; a value that isn't known is a question mark."""
    return "; ".join(f"{f.about}. {f.name} with {listed(a)}" for f, a in zip(functions, arguments, strict=True)) + "."
