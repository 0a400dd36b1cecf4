"""Procedural text for the nano backbone: what any language model brings along, in invented words.

Seven kinds of document, each drawn from a seed: requests over function schemas, results that feed a next call,
records and questions, facts restated, lists to copy from, references to follow, and plain phrases. A document is a
list of parts; ``learn`` says whether a part can be known from what stands before it (a value drawn at random can't),
and only such parts are in the loss. Nothing here is taken from ToolWorld: no tool, template or value (tested).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from alpha_umi.training.words import ADJECTIVES, LINKING, NOUNS, THINGS, VERBS, identifier, invented, proper_name


class Part(NamedTuple):
    """A piece of a document and whether it follows from what stands before it."""

    text: str
    learn: bool


Document = list[Part]


def _pick(rng: random.Random, *options: str) -> str:
    return rng.choice(options)


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1990, 2039)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _number(rng: random.Random) -> float | int:
    if rng.random() < 0.25:
        return round(rng.uniform(0, 500), rng.choice((1, 2)))
    return rng.randrange(10 ** rng.randint(1, 4))


@dataclass(frozen=True)
class Field:
    """A named, typed slot: a parameter of a function or a column of a table."""

    name: str
    type: str
    description: str
    choices: tuple[str, ...] = ()

    def draw(self, rng: random.Random) -> Any:
        """A random value of the field's type."""
        if self.choices:
            return rng.choice(self.choices)
        if self.type == "integer":
            return rng.randrange(1, 10 ** rng.randint(1, 3))
        if self.type == "number":
            return _number(rng)
        if self.type == "boolean":
            return rng.random() < 0.5
        if self.type == "array":
            return [proper_name(rng) for _ in range(rng.randint(2, 3))]
        return {"date": _date, "id": identifier, "time": _time}.get(self.description.split()[-1], proper_name)(rng)

    @property
    def schema(self) -> dict[str, Any]:
        """The field as a JSON Schema property."""
        out: dict[str, Any] = {"type": self.type}
        if self.type == "array":
            out["items"] = {"type": "string"}
        if self.choices:
            out["enum"] = list(self.choices)
        return out | {"description": self.description}


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(0, 60, 5):02d}"


def said(value: Any) -> str:
    """A value as it stands in a sentence."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _noun(rng: random.Random) -> str:
    return rng.choice(NOUNS)


def field(rng: random.Random) -> Field:
    """A random field."""
    noun = _noun(rng) if rng.random() < 0.8 else rng.choice(THINGS)
    name = noun if rng.random() < 0.6 else f"{rng.choice(ADJECTIVES + NOUNS)}_{noun}"
    phrase = name.replace("_", " ")
    kind = rng.choices(
        ("name", "id", "date", "time", "integer", "number", "boolean", "enum", "array"),
        (30, 14, 10, 5, 13, 8, 5, 12, 4),
    )[0]
    capital = phrase.capitalize()
    if kind == "name":
        return Field(name, "string", _pick(rng, capital, f"Name of the {phrase}", f"The {phrase}", f"{capital} name"))
    if kind in ("id", "date", "time"):
        return Field(f"{name}_{kind}" if rng.random() < 0.6 else name, "string", f"{capital} {kind}")
    if kind == "enum":
        choices = tuple(rng.sample(ADJECTIVES + NOUNS, rng.randint(2, 4)))
        return Field(name, "string", _pick(rng, capital, f"Kind of {phrase}"), choices)
    return Field(name, kind, _pick(rng, capital, f"The {phrase}", f"{capital} wanted"))


def fields(rng: random.Random, count: int) -> list[Field]:
    """Fields with distinct names."""
    out: dict[str, Field] = {}
    while len(out) < count:
        one = field(rng)
        out.setdefault(one.name, one)
    return list(out.values())


@dataclass(frozen=True)
class Function:
    """An invented function."""

    name: str
    what: str
    params: tuple[Field, ...]
    required: tuple[str, ...]

    @property
    def schema(self) -> str:
        """Its JSON schema on one line."""
        parameters = {
            "type": "object",
            "properties": {param.name: param.schema for param in self.params},
            "required": list(self.required),
        }
        return json.dumps({"name": self.name, "description": self.what, "parameters": parameters}, ensure_ascii=False)


def function(rng: random.Random) -> tuple[Function, str]:
    """An invented function, and a phrase of what it does."""
    verb, noun, thing = rng.choice(VERBS), _noun(rng), _noun(rng)
    phrase = _pick(
        rng, f"{verb} the {noun} of a {thing}", f"{verb} a {noun}", f"{verb} {noun} by {thing}",
        f"{verb} the {thing} {noun}",
        f"{verb} a {rng.choice(ADJECTIVES)} {noun}", f"{verb} a {noun} for a {thing}",
    )  # fmt: skip
    params = fields(rng, rng.choice((1, 1, 2, 2, 3, 4)))
    required = [param.name for param in params if rng.random() < 0.75] or [params[0].name]
    prefix = invented(rng) if rng.random() < 0.8 else _noun(rng)
    name = _pick(rng, f"{prefix}_{verb}_{noun}", f"{prefix}_{verb}_{noun}", f"{verb}_{noun}", f"{prefix}_{noun}")
    what = phrase[0].upper() + phrase[1:] + "."
    return Function(name, what, tuple(params), tuple(required)), phrase


def _functions(rng: random.Random, count: int) -> list[tuple[Function, str]]:
    out: dict[str, tuple[Function, str]] = {}
    while len(out) < count:
        one, phrase = function(rng)
        out.setdefault(one.name, (one, phrase))
    return list(out.values())


def _arguments(rng: random.Random, one: Function) -> dict[str, Any]:
    return {p.name: p.draw(rng) for p in one.params if p.name in one.required or rng.random() < 0.4}


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A call as a JSON object."""
    return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)


def _spoken(rng: random.Random, arguments: dict[str, Any], shuffle: bool = True) -> str:
    """Arguments as a request says them, in random wording and, if asked for, random order."""
    items = list(arguments.items())
    if shuffle:
        rng.shuffle(items)
    style = rng.randrange(4)
    words = []
    for name, value in items:
        plain = name.replace("_", " ")
        words.append(
            (
                f"{plain} {said(value)}",
                f"the {plain} is {said(value)}",
                f"{plain}: {said(value)}",
                f"with {said(value)} as {plain}",
            )[style]
        )
    return rng.choice((", ", " and ", ", ")).join(words)


def _listed(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name} {said(value)}" for name, value in arguments.items())


def _plan(rng: random.Random, name: str, arguments: dict[str, Any]) -> str:
    return _pick(
        rng,
        f"Use {name} with {_listed(arguments)}.",
        f"{name} fits: {_listed(arguments)}.",
        f"So {name}, {_listed(arguments)}.",
    )


def _request(rng: random.Random, phrase: str, arguments: dict[str, Any]) -> str:
    wish = _pick(rng, "Please", "I want to", "Can you", "I need to", "We have to", "Kindly", "Now")
    return f"{wish} {phrase}, {_spoken(rng, arguments)}." if arguments else f"{wish} {phrase}."


def _result(rng: random.Random) -> dict[str, Any]:
    return {one.name: one.draw(rng) for one in fields(rng, rng.randint(1, 3))}


def _told(rng: random.Random, record: dict[str, Any], of: str = "") -> str:
    parts = [f"the {name.replace('_', ' ')}{of} is {said(value)}" for name, value in record.items()]
    text = rng.choice((" and ", ", ")).join(parts) + "."
    return text[0].upper() + text[1:]


def requests(rng: random.Random) -> Document:
    """Schemas, then requests: which function, which arguments, the call, and what came of it."""
    known = _functions(rng, rng.randint(2, 5))
    doc = [Part(_pick(rng, "Functions:", "API:", "Available functions") + "\n", False)]
    doc += [Part(one.schema + "\n", False) for one, _ in known]
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        one, phrase = rng.choice(known)
        arguments = _arguments(rng, one)
        given = dict(arguments)
        event = rng.random()
        missing = rng.choice(list(one.required)) if event < 0.12 else None
        if missing:
            given.pop(missing)
        if 0.12 <= event < 0.2:
            _, other = function(rng)
            doc += [Part(f"Request: {_request(rng, other, _result(rng))}\n", False), Part("No function fits.\n", True)]
            continue
        doc.append(Part(f"Request: {_request(rng, phrase, given)}\n", False))
        if missing:
            doc.append(Part(f"{one.name} needs {missing.replace('_', ' ')}, which is not given.\n", True))
            continue
        if rng.random() < 0.7:
            doc.append(Part(f"Plan: {_plan(rng, one.name, arguments)}\n", True))
        doc.append(Part(f"Call: {call_text(one.name, arguments)}\n", True))
        doc += _outcome(rng, one.name)
    return doc


def _outcome(rng: random.Random, name: str) -> Document:
    if rng.random() < 0.2:
        word = rng.choice(ADJECTIVES + NOUNS)
        return [Part(f'Result: {{"error": "{word}"}}\n', False), Part(f"{name} failed: {word}.\n", True)]
    record = _result(rng)
    return [
        Part(f"Result: {json.dumps(record, ensure_ascii=False)}\n", False),
        Part(f"Answer: {_told(rng, record)}\n", True),
    ]


def chains(rng: random.Random) -> Document:
    """A result whose value the next call needs."""
    known = _functions(rng, rng.randint(2, 4))
    (first, first_phrase), (second, second_phrase) = known[0], known[1]
    link = rng.choice(second.params)
    given, rest = _arguments(rng, first), _arguments(rng, second)
    value = link.draw(rng)
    rest = {
        p.name: value if p.name == link.name else rest[p.name]
        for p in second.params
        if p.name == link.name or p.name in rest
    }
    found = _result(rng)
    found = {link.name: value} | found if rng.random() < 0.5 else {**found, link.name: value}
    others = {k: v for k, v in rest.items() if k != link.name}
    shuffled = rng.sample(known, len(known))
    tail = f", {_spoken(rng, others)}" if others else ""
    linked = link.name.replace("_", " ")
    return [
        *(Part(one.schema + "\n", False) for one, _ in shuffled),
        Part(f"Request: {_request(rng, first_phrase, given)} Then {second_phrase} with that {linked}{tail}.\n", False),
        Part(f"Plan: {_plan(rng, first.name, given)}\nCall: {call_text(first.name, given)}\n", True),
        Part(f"Result: {json.dumps(found, ensure_ascii=False)}\n", False),
        Part(f"Plan: The {linked} is {said(value)}. {_plan(rng, second.name, rest)}\n", True),
        Part(f"Call: {call_text(second.name, rest)}\n", True),
        *_outcome(rng, second.name),
    ]  # fmt: skip


def records(rng: random.Random) -> Document:
    """JSON records with names, and questions about one of their values."""
    columns = fields(rng, rng.randint(2, 4))
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(rng.randint(2, 5)):
        rows[proper_name(rng)] = {column.name: column.draw(rng) for column in columns}
    doc = [
        Part(
            "\n".join(json.dumps({"name": name} | row, ensure_ascii=False) for name, row in rows.items()) + "\n", False
        )
    ]
    for _ in range(rng.randint(2, 5)):
        name = rng.choice(list(rows))
        column = rng.choice(columns)
        plain, value = column.name.replace("_", " "), said(rows[name][column.name])
        if rng.random() < 0.7:
            doc.append(Part(f"What is the {plain} of {name}?", False))
            doc.append(
                Part(_pick(rng, f" The {plain} of {name} is {value}.\n", f" {value}.\n", f" {name}: {value}.\n"), True)
            )
        elif sum(said(row[column.name]) == value for row in rows.values()) == 1:
            doc.append(Part(f"Which one has {plain} {value}?", False))
            doc.append(Part(f" {name}.\n", True))
    return doc


def restated(rng: random.Random) -> Document:
    """One set of facts as a sentence, as JSON, as a list and as a sentence again."""
    record = {one.name: one.draw(rng) for one in fields(rng, rng.randint(2, 5))}
    name = proper_name(rng)
    forms = [
        f"{name}: {_told(rng, record)}\n",
        json.dumps({"name": name} | record, ensure_ascii=False) + "\n",
        f"{name} has {_spoken(rng, record, shuffle=False)}.\n",
        "".join(f"- {key}: {said(value)}\n" for key, value in record.items()),
        f"{name} {_listed(record)}.\n",
        call_text(invented(rng) + "_" + rng.choice(VERBS), record) + "\n",
    ]
    rng.shuffle(forms)
    return [Part(form, number > 0) for number, form in enumerate(forms[: rng.randint(3, 5)])]


def lists(rng: random.Random) -> Document:
    """Items to repeat, reverse, count, pick by place or find the neighbour of."""
    make = rng.choice(
        (proper_name, identifier, invented, lambda r: said(_number(r)), lambda r: f"{invented(r)}_{_noun(r)}")
    )
    items = list(dict.fromkeys(make(rng) for _ in range(rng.randint(3, 8))))
    doc = [Part(f"List: {', '.join(items)}\n", False)]
    for _ in range(rng.randint(2, 4)):
        spot = rng.randrange(len(items) - 1)
        doc += rng.choice((
            [Part("Again:", False), Part(f" {', '.join(items)}\n", True)],
            [Part("JSON:", False), Part(f" {json.dumps(items)}\n", True)],
            [Part("Backwards:", False), Part(f" {', '.join(reversed(items))}\n", True)],
            [Part(f"After {items[spot]}:", False), Part(f" {items[spot + 1]}\n", True)],
            [Part(f"Before {items[spot + 1]}:", False), Part(f" {items[spot]}\n", True)],
            [Part(f"Number {spot + 1}:", False), Part(f" {items[spot]}\n", True)],
            [Part("First and last:", False), Part(f" {items[0]}, {items[-1]}\n", True)],
            [Part("Count:", False), Part(f" {len(items)}\n", True)],
        ))  # fmt: skip
    return doc


def references(rng: random.Random) -> Document:
    """Facts that lead from one name to another, and questions of one step or two."""
    (first, second), people = rng.sample(NOUNS, 2), [proper_name(rng) for _ in range(rng.randint(2, 4))]
    places = {person: proper_name(rng) for person in people}
    codes = {place: identifier(rng) for place in places.values()}
    facts = [f"The {first} of {a} is {b}." for a, b in places.items()] + [
        f"{b} has the {second} {c}." for b, c in codes.items()
    ]
    rng.shuffle(facts)
    doc = [Part(" ".join(facts) + "\n", False)]
    for person in rng.sample(people, rng.randint(1, 2)):
        place = places[person]
        doc.append(Part(f"{second.capitalize()} of the {first} of {person}?", False))
        doc.append(Part(f" {place}, so {codes[place]}.\n", True))
    return doc


def phrases(rng: random.Random) -> Document:
    """Phrases of ordinary words, said twice in two shapes: the words themselves, and as names with underscores."""
    doc: Document = []
    for _ in range(rng.randint(2, 5)):
        words = [
            rng.choice(rng.choice((NOUNS, VERBS, ADJECTIVES, LINKING, LINKING, THINGS)))
            for _ in range(rng.randint(2, 6))
        ]
        text = " ".join(words)
        doc.append(Part(_pick(rng, f"Say {text}", f"The words {text}", text.capitalize()) + ".", False))
        doc.append(
            Part(
                _pick(rng, f" {'_'.join(words)}", f" {json.dumps(words)}", f' "{text}"', f" {text.capitalize()}.")
                + "\n",
                True,
            )
        )
    return doc


KINDS: dict[str, tuple[Callable[[random.Random], Document], float]] = {
    "requests": (requests, 0.38),
    "chains": (chains, 0.17),
    "records": (records, 0.12),
    "restated": (restated, 0.13),
    "lists": (lists, 0.1),
    "references": (references, 0.05),
    "phrases": (phrases, 0.05),
}
"""Every kind of document and its share."""


def tokenizer_text(seed: int, index: int) -> str:
    """Text to train the tokenizer on: the corpus with more ordinary words than it has itself."""
    rng = random.Random(f"tokenizer/{seed}/{index}")
    words = [rng.choice(rng.choice((NOUNS, NOUNS, VERBS, ADJECTIVES, LINKING, THINGS))) for _ in range(120)]
    forms = [f'"{word}" {word} {word.capitalize()}.\n' for word in words[:80]]
    linked = [f" {rng.choice(LINKING)} {word}" for word in words]
    return "".join(forms + linked) + "".join(part.text for part in document(seed, index))


def document(seed: int, index: int) -> Document:
    """Document ``index`` of the endless corpus with this seed; it depends on nothing else."""
    rng = random.Random(f"corpus/{seed}/{index}")
    kind = rng.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
    return KINDS[kind][0](rng)


def documents(seed: int, start: int = 0) -> Iterator[Document]:
    """The corpus from document ``start`` on, without end."""
    index = start
    while True:
        yield document(seed, index)
        index += 1
