"""Procedural text for the nano backbone: what any language model brings along, in invented words.

Nine kinds of document, each drawn from a seed: requests over functions, plans for requests, functions to be named,
pairs to be looked up, records and questions, facts restated, lists to copy from, references to follow, and plain
phrases. What is looked up comes in easy documents too, with few and plainly different things to choose from: copying on
is learnt from any text, choosing what to copy only where the choice is asked for again and again. A document is a list
of parts; ``learn`` says whether a part follows from what stands before it, and only such parts are in the loss: no
value drawn at random, and no wording that could have been another. What is to be copied often looks alike (names of one
service, identifiers with the same letters), so that the last word alone doesn't tell what comes next. Requests are
written as a chat, in the transcript's own segments, with everything that is to be learnt under the header of an
``assistant``: planner, caller and summarizer are left to fine-tuning. Nothing here is taken from ToolWorld: no tool,
template or value (tested).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from alpha_umi.training.functions import (
    Function,
    call_text,
    distinct,
    fields,
    listed,
    noun,
    number,
    plan_text,
    record,
    said,
    services,
    tell,
    verb,
)
from alpha_umi.training.words import (
    ADJECTIVES,
    LINKING,
    NOUNS,
    THINGS,
    VERBS,
    identifier,
    invented,
    letters,
    proper_name,
)
from alpha_umi.transcript import KINDS as HEADERS
from alpha_umi.transcript import NANO_END, Kind, nano_token

_UNKNOWN = "?"
_ERRORS = ("not found", "closed", "too late", "broken line", "refused", "try later", "bad request", "limit reached")


class Part(NamedTuple):
    """A piece of a document and whether it follows from what stands before it."""

    text: str
    learn: bool


Document = list[Part]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _said(kind: Kind, text: str) -> Document:
    """A segment of a chat; what an assistant says follows from what stands before it."""
    return [Part(nano_token(kind), False), Part(text + NANO_END, kind == "assistant")]


def _shown(rng: random.Random, functions: Sequence[Function]) -> Document:
    """The functions there are, as schemas in one order of their keys, or now and then in short."""
    if rng.random() < 0.92:
        name_first = rng.random() < 0.1
        return _said("system", "\n".join(["# Tools", *(one.schema(name_first) for one in functions)]))
    head = rng.choice(("Functions:", "API:", "Available functions", "What can be called:", "# Functions"))
    return _said("system", "\n".join([head, *(one.signature for one in functions)]))


class _Step(NamedTuple):
    """A call, its result, and what there is to say about it."""

    function: Function
    arguments: dict[str, Any]
    result: dict[str, Any]
    answer: str

    @property
    def call(self) -> str:
        return call_text(self.function.name, self.arguments)

    @property
    def reply(self) -> Document:
        return _said("tool", _json(self.result))


def _step(rng: random.Random, one: Function, arguments: dict[str, Any], holds: dict[str, Any] | None = None) -> _Step:
    """Calls the function: it gives facts (with ``holds`` among them, if that is wanted), finds things, or fails."""
    event = 1.0 if holds else rng.random()
    if event < 0.12:
        error = rng.choice(_ERRORS) if rng.random() < 0.5 else rng.choice(ADJECTIVES + NOUNS)
        return _Step(one, arguments, {"error": error}, f"{one.name} failed, {error}")
    if event < 0.3:
        code = letters(rng)
        made = proper_name if rng.random() < 0.4 else lambda r: identifier(r, code)
        found = [made(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        result = {rng.choice(("found", "matches")): found}
        return _Step(one, arguments, result, f"{said(found)} found" if found else f"no {one.noun} found")
    facts = list((record(rng, 2) | (holds or {})).items()) if holds else list(record(rng).items())
    rng.shuffle(facts)
    return _Step(one, arguments, dict(facts), f"{said(next(iter(arguments.values())))}, {tell(dict(facts))}")


def _single(rng: random.Random, known: Sequence[Function], often: Mapping[str, int]) -> Document:
    one = rng.choice(known)
    step = _step(rng, one, one.arguments(rng))
    return [
        *_said("user", f"{one.request(rng, step.arguments, often[one.noun] == 1)}."),
        *_said("assistant", plan_text([one], [step.arguments])),
        *_said("assistant", step.call),
        *step.reply,
        *_said("assistant", f"{step.answer}."),
    ]


def _incomplete(rng: random.Random, known: Sequence[Function], often: Mapping[str, int]) -> Document:
    one = rng.choice(known)
    arguments = one.arguments(rng)
    lost = set(rng.sample(one.required, 1 if rng.random() < 0.85 else min(2, len(one.required))))
    given = {name: value for name, value in arguments.items() if name not in lost}
    planned = {name: _UNKNOWN if name in lost else value for name, value in arguments.items()}
    ask = " and ".join(p.words for p in one.params if p.name in lost)
    return [
        *_said("user", f"{one.request(rng, given, often[one.noun] == 1)}."),
        *_said("assistant", plan_text([one], [planned])),
        *_said("assistant", f"Please add the {ask}."),
    ]


def _together(rng: random.Random, known: Sequence[Function], often: Mapping[str, int]) -> Document:
    steps = [_step(rng, one, one.arguments(rng)) for one in (rng.choice(known), rng.choice(known))]
    wishes = [step.function.request(rng, step.arguments, often[step.function.noun] == 1) for step in steps]
    plan = plan_text([step.function for step in steps], [step.arguments for step in steps])
    return [
        *_said("user", f"{rng.choice(('. Also: ', '. And ', '. Besides: ', ' as well as ')).join(wishes)}."),
        *_said("assistant", f"Both, {plan}"),
        *_said("assistant", "\n".join(step.call for step in steps)),
        *(part for step in steps for part in step.reply),
        *_said("assistant", " ".join(f"{step.answer}." for step in steps)),
    ]


def _in_turn(rng: random.Random, known: Sequence[Function], often: Mapping[str, int]) -> Document:
    """Two or three calls one after another; a later one may need what the one before it gave."""
    functions = rng.choices(known, k=rng.choice((2, 2, 3)))
    steps: list[_Step] = []
    wishes: list[str] = []
    plans: list[str] = []
    linked: dict[str, Any] = {}
    for number_, one in enumerate(functions):
        arguments = one.arguments(rng, linked)
        that = next(iter(linked), None)
        wishes.append(one.request(rng, arguments, often[one.noun] == 1 and that is None, that))
        opening = f"the {that.replace('_', ' ')} is {said(linked[that])}, " if that else "next, " if number_ else ""
        plans.append(opening + plan_text([one], [arguments]))
        linked = {}
        if number_ + 1 < len(functions) and rng.random() < 0.6:
            link = rng.choice(functions[number_ + 1].params)
            linked = {link.name: link.draw(rng)}
        steps.append(_step(rng, one, arguments, linked))
    joint = rng.choice((". Then ", " and afterwards ", ". Once done, ", "; next ", ". After it, "))
    doc = _said("user", f"{joint.join(wishes)}.")
    for plan, step in zip(plans, steps, strict=True):
        doc += [*_said("assistant", plan), *_said("assistant", step.call), *step.reply]
    return [*doc, *_said("assistant", " ".join(f"{step.answer}." for step in steps))]


def requests(rng: random.Random) -> Document:
    """Functions, then requests: which of them, which arguments, the calls, and what came of them.

    Some requests leave out a required argument, some can't be met, some ask for several things, together or in turn.
    """
    known, hidden, often = _offered(rng)
    doc = _shown(rng, known)
    for _ in range(rng.choice((2, 2, 3, 3, 4))):
        if rng.random() < 0.1:
            doc += _unmet(rng, hidden, often)
        else:
            make = rng.choices((_single, _incomplete, _together, _in_turn), (0.4, 0.2, 0.12, 0.28))[0]
            doc += make(rng, known, often)
    return doc


def _offered(rng: random.Random) -> tuple[list[Function], Function, Counter[str]]:
    """Functions, one that isn't there, and how often each noun occurs among them all."""
    count = rng.randint(2, 6)
    every = distinct(rng, count + 1) if rng.random() < 0.35 else services(rng, count + 1)
    return every[:count], every[count], Counter(one.noun for one in every)


def _unmet(rng: random.Random, hidden: Function, often: Mapping[str, int]) -> Document:
    wish = hidden.request(rng, hidden.arguments(rng), often[hidden.noun] == 1)
    return [*_said("user", f"{wish}."), *_said("assistant", "No function fits.")]


def plans(rng: random.Random) -> Document:
    """Functions, then many requests and only what is to be done about each: the hardest part of `requests`."""
    known, hidden, often = _offered(rng)
    doc = _shown(rng, known)
    for _ in range(rng.randint(4, 8)):
        if rng.random() < 0.15:
            doc += _unmet(rng, hidden, often)
        else:
            make = _incomplete if rng.random() < 0.3 else _single
            doc += make(rng, known, often)[:4]
    return doc


def picks(rng: random.Random) -> Document:
    """Functions and what they do; then wishes, and which function is meant, or what a function does."""
    functions = distinct(rng, rng.randint(2, 6))
    shown = rng.choice(("{1}: {0}", "{1}. {0}", '{{"description": "{1}", "name": "{0}"}}', "{0}: {1}"))
    doc = [Part("".join(f"{shown.format(one.name, one.about)}\n" for one in functions), False)]
    for _ in range(rng.randint(6, 12)):
        one = rng.choice(functions)
        if rng.random() < 0.2:
            doc += [Part(f"{one.name}?", False), Part(f" {one.about}\n", True)]
        else:
            wish, more = one.request(rng, {}, True), rng.random() < 0.4
            doc += [Part(f"{wish}:", False), Part(f" {one.about}. {one.name}\n" if more else f" {one.name}\n", True)]
    return doc


_THINGS: tuple[Callable[[random.Random], str], ...] = (
    proper_name, identifier, invented, lambda rng: rng.choice(NOUNS), lambda rng: said(number(rng)),
    lambda rng: f"{rng.choice(ADJECTIVES)}_{rng.choice(NOUNS)}", lambda rng: rng.choice(ADJECTIVES),
)  # fmt: skip


def lookups(rng: random.Random) -> Document:
    """Pairs, and many questions in both directions."""
    left, right = rng.sample(_THINGS, 2)
    count = rng.randint(2, 8)
    pairs = dict(zip(_different(rng, left, count), _different(rng, right, count), strict=True))
    if rng.random() < 0.3:
        shown = _json(pairs) + "\n"
    else:
        form = rng.choice(("{0}: {1}\n", "{0} is {1}. ", "{0} -> {1}\n", "- {0}, {1}\n", "{0} has {1}; "))
        shown = "".join(form.format(key, value) for key, value in pairs.items()).rstrip() + "\n"
    doc = [Part(shown, False)]
    for _ in range(rng.randint(6, 14)):
        key, value = rng.choice(list(pairs.items()))
        if rng.random() < 0.3:
            key, value = value, key
        ask = rng.choice((f"{key}?", f"What goes with {key}?", f"{key}:", f'"{key}"?'))
        doc += [Part(ask, False), Part(f" {value}\n", True)]
    return doc


def _different(rng: random.Random, make: Callable[[random.Random], str], count: int) -> list[str]:
    out: dict[str, None] = {}
    while len(out) < count:
        out[make(rng)] = None
    return list(out)


def records(rng: random.Random) -> Document:
    """JSON records with names, and questions about their values."""
    columns = fields(rng, rng.randint(2, 4))
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(rng.randint(2, 4)):
        rows[proper_name(rng)] = {column.name: column.draw(rng) for column in columns}
    doc = [Part("".join(f"{_json({'name': name} | row)}\n" for name, row in rows.items()), False)]
    for _ in range(rng.randint(4, 8)):
        name = rng.choice(list(rows))
        column = rng.choice(columns)
        value = said(rows[name][column.name])
        if rng.random() < 0.65:
            ask = rng.choice(
                (f"{name}, {column.words}?", f"{column.words} of {name}?", f"Which {column.words} has {name}?")
            )
            doc += [Part(ask, False), Part(f" {value}\n", True)]
        elif sum(said(row[column.name]) == value for row in rows.values()) == 1:
            doc += [Part(f"Who has {column.words} {value}?", False), Part(f" {name}\n", True)]
    return doc


def restated(rng: random.Random) -> Document:
    """One set of facts as a sentence, as JSON, as a list and as a call; the head says which comes next."""
    facts = {one.name: one.draw(rng) for one in fields(rng, rng.randint(2, 5))}
    name = proper_name(rng)
    shapes = [
        ("Sentence: ", f"{name}, {tell(facts)}."),
        ("JSON: ", _json({"name": name} | facts)),
        ("List:\n", "\n".join(f"- {key}: {said(value)}" for key, value in facts.items())),
        ("In short: ", f"{name} {listed(facts)}."),
        ("Keys: ", ", ".join(facts)),
        ("Values: ", "; ".join(map(said, facts.values()))),
        ("Call: ", call_text("store", facts)),
    ]
    rng.shuffle(shapes)
    shapes.sort(key=lambda shape: shape[0] in ("Keys: ", "Values: "))  # those tell too little to come first
    doc: Document = []
    before = ""
    for head, text in shapes[:2] + rng.sample(shapes[2:], rng.randint(1, 3)):
        follows = bool(before) and (name in before or name not in text)
        doc += [Part(head, False), Part(text + "\n", follows)]
        before += text
    return doc


def lists(rng: random.Random) -> Document:
    """Items to repeat, reverse, count, pick by place or find the neighbour of."""
    code, first = letters(rng), invented(rng)
    alike = [noun(rng) for _ in range(3)]
    make = rng.choice((
        proper_name, identifier, invented, lambda r: said(number(r)), lambda r: identifier(r, code),
        lambda r: f"{first.capitalize()} {proper_name(r)}", lambda r: f"{first}_{verb(r)}_{r.choice(alike)}",
        lambda r: f"{invented(r)}_{r.choice(VERBS)}_{r.choice(alike)}",
        lambda r: f"{r.choice(alike)}{r.choice((first, *alike))}_{r.choice(alike)}",
    ))  # fmt: skip
    items = list(dict.fromkeys(make(rng) for _ in range(rng.randint(3, 8))))
    doc = [Part(f"List: {', '.join(items)}\n", False)]
    for _ in range(rng.randint(3, 6)):
        spot = rng.randrange(len(items) - 1) if len(items) > 1 else 0
        after, before = items[min(spot + 1, len(items) - 1)], items[spot]
        head, text = rng.choice((
            ("Again:", ", ".join(items)),
            ("Again:", ", ".join(items)),
            ("JSON:", json.dumps(items)),
            ("Backwards:", ", ".join(reversed(items))),
            (f"After {before}:", after),
            (f"Before {after}:", before),
            (f"Number {spot + 1}:", before),
            ("First and last:", f"{items[0]}, {items[-1]}"),
            ("Count:", str(len(items))),
        ))  # fmt: skip
        doc += [Part(head, False), Part(f" {text}\n", True)]
    return doc


def references(rng: random.Random) -> Document:
    """Facts that lead from one name to another, and questions of one step or two."""
    first, second = noun(rng), noun(rng)
    people = [proper_name(rng) for _ in range(rng.randint(2, 4))]
    places = {person: proper_name(rng) for person in people}
    codes = {place: identifier(rng) for place in places.values()}
    facts = [f"The {first} of {a} is {b}." for a, b in places.items()] + [
        f"{b} has the {second} {c}." for b, c in codes.items()
    ]
    rng.shuffle(facts)
    doc = [Part(" ".join(facts) + "\n", False)]
    for person in rng.sample(people, min(len(people), rng.randint(2, 3))):
        place = places[person]
        doc.append(Part(f"{second.capitalize()} of the {first} of {person}?", False))
        doc.append(Part(f" {place}, so {codes[place]}.\n", True))
    return doc


def phrases(rng: random.Random) -> Document:
    """Phrases of ordinary words, said twice: as a name with underscores, as JSON, quoted, as a sentence."""
    doc: Document = []
    for _ in range(rng.randint(3, 6)):
        words = [
            noun(rng) if rng.random() < 0.4 else rng.choice(rng.choice((VERBS, ADJECTIVES, LINKING, LINKING, THINGS)))
            for _ in range(rng.randint(2, 6))
        ]
        text = " ".join(words)
        first = rng.choice((f"Say {text}", f"The words {text}", text.capitalize(), f'"{text}"'))
        head, shape = rng.choice((
            ("Name:", "_".join(words)), ("JSON:", json.dumps(words)), ("Quoted:", f'"{text}"'),
            ("Sentence:", f"{text.capitalize()}."), ("Words:", text),
        ))  # fmt: skip
        doc += [Part(f"{first}. {head}", False), Part(f" {shape}\n", True)]
    return doc


KINDS: dict[str, tuple[Callable[[random.Random], Document], float]] = {
    "requests": (requests, 0.2),
    "plans": (plans, 0.34),
    "picks": (picks, 0.14),
    "lookups": (lookups, 0.16),
    "records": (records, 0.08),
    "restated": (restated, 0.03),
    "lists": (lists, 0.04),
    "references": (references, 0.005),
    "phrases": (phrases, 0.005),
}
"""Every kind of document and its share of the documents (requests are long: they are half of the tokens)."""


def tokenizer_text(seed: int, index: int) -> str:
    """Text to train the tokenizer on: the corpus with more ordinary words than it has itself."""
    rng = random.Random(f"tokenizer/{seed}/{index}")
    words = [rng.choice(rng.choice((NOUNS, NOUNS, VERBS, ADJECTIVES, LINKING, THINGS))) for _ in range(120)]
    forms = [f'"{word}" {word} {word.capitalize()}.\n' for word in words[:80]]
    linked = [f" {rng.choice(LINKING)} {word}" for word in words]
    markers = {*map(nano_token, HEADERS)}
    text = "".join(part.text for part in document(seed, index) if part.text not in markers)
    return "".join(forms + linked) + text.replace(NANO_END, "\n")


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
