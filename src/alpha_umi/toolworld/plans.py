"""Plans a task: which behaviour, which APIs, which distractors, what fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from alpha_umi.toolworld.catalogue import READING, Api, Partition, load_catalogue
from alpha_umi.toolworld.drafts import Draft, Link
from alpha_umi.toolworld.tasks import NOT_AUTHORISED, TRANSIENT, Fault, Kind, Shape

KIND_SHARES: Mapping[Shape, Mapping[Kind, float]] = {
    "I1": {
        "single": 29, "multi": 9, "chain": 9, "parallel": 8, "missing": 12, "impossible": 8, "retry": 9,
        "alternative": 6, "blocked": 5, "empty": 5,
    },
    "I2": {
        "multi": 21, "chain": 20, "parallel": 14, "missing": 12, "impossible": 8, "retry": 9, "alternative": 6,
        "blocked": 5, "empty": 5,
    },
    "I3": {
        "multi": 21, "chain": 20, "parallel": 14, "missing": 12, "impossible": 8, "retry": 9, "alternative": 6,
        "blocked": 5, "empty": 5,
    },
}  # fmt: skip
_THIRD_CALL = 0.15
_COMPANION = 0.3
_STRAY_MIRROR = 0.12
_SAME_COLLECTION = 0.5
_NOT_AUTHORISED = 0.4
_LIST_SIZES = (4, 4, 5, 5, 6)


@dataclass(frozen=True)
class Plan:
    """What ``draft`` decided.

    Attributes:
        kind: The behaviour.
        apis: The APIs called, in order.
        shown: Every API in the tools list, shuffled.
        faults: What fails when.
        at_once: Whether the calls go into one turn.
    """

    kind: Kind
    apis: tuple[Api, ...]
    shown: tuple[Api, ...]
    faults: tuple[Fault, ...]
    at_once: bool


@cache
def originals(partition: Partition) -> tuple[Api, ...]:
    """The APIs of a data partition that mirror no other."""
    return tuple(api for c in load_catalogue().partition(partition) for api in c.apis if api.mirror_of is None)


@cache
def grouped(partition: Partition, shape: Shape) -> tuple[tuple[tuple[Api, ...], ...], ...]:
    """Where a task of this shape takes its calls from: each item is a scope, split into parts to take one call each.

    I1: one collection, a single part. I2: a category, a part a collection. I3: everything, a part a category.
    """
    if shape == "I1":
        return tuple((_of(c.apis),) for c in load_catalogue().partition(partition))
    categories: dict[str, list[tuple[Api, ...]]] = {}
    for collection in load_catalogue().partition(partition):
        categories.setdefault(collection.category, []).append(_of(collection.apis))
    if shape == "I2":
        return tuple(tuple(parts) for parts in categories.values() if len(parts) > 1)
    return (tuple(tuple(api for part in parts for api in part) for parts in categories.values()),)


def _of(apis: Iterable[Api]) -> tuple[Api, ...]:
    return tuple(api for api in apis if api.mirror_of is None)


@cache
def links(partition: Partition, shape: Shape) -> tuple[tuple[Api, tuple[Link, ...]], ...]:
    """Per API, the links from it to others that a chain of this shape can follow."""
    out = []
    for source in originals(partition):
        found = [
            link
            for target in originals(partition)
            if _fits_shape(source, target, shape)
            for link in _between(source, target)
        ]
        if found:
            out.append((source, tuple(found)))
    return tuple(out)


def _fits_shape(source: Api, target: Api, shape: Shape) -> bool:
    if source.name == target.name:
        return False
    if shape == "I1":
        return source.collection == target.collection
    return source.collection != target.collection and (source.category == target.category) == (shape == "I2")


def _between(source: Api, target: Api) -> list[Link]:
    if source.op not in ("get", "search"):
        return []
    columns = {field.name: field for field in load_catalogue().collections[source.table].columns}
    used = {param.name for param in source.params}
    found = []
    for name in source.gives if source.op == "get" else source.gives[:1]:
        given = columns[name]
        for param in target.params:
            same = param.name == name if source.table == target.table else param.field.link == given.link
            kinds = (given.kind, param.field.kind)
            alike = kinds[0] == kinds[1] or kinds == ("int", "num")
            linkable = same and given.link and alike and not param.field.column and param.name not in used
            if linkable and param.required:
                found.append(Link(source, name, target, param.name))
    return found


def make_plan(rng: Random, draft: Draft, partition: Partition, shape: Shape, kind: Kind) -> Plan | None:
    """Chooses APIs, drafts the calls and sets the faults; None if this try came to nothing."""
    apis = _draft_calls(rng, draft, partition, shape, kind)
    if apis is None:
        return None
    at_once = len(apis) > 1 and all(step.turn == 0 for step in draft.steps)
    mirrors = load_catalogue().mirrors
    faults: tuple[Fault, ...] = ()
    needed = [] if kind == "impossible" else list(dict.fromkeys(apis))
    out_of_reach: tuple[Api, ...] = apis if kind == "impossible" else ()
    if kind in ("retry", "alternative", "blocked"):
        victim = rng.choice(apis) if kind != "alternative" else _mirrored(rng, apis, shape)
        if victim is None:
            return None
        faults = (_fault(rng, victim.name, kind),)
        if kind == "alternative":
            needed.append(mirrors[victim.name])
        out_of_reach = (victim,) if kind == "blocked" else ()
    if kind not in ("impossible", "alternative", "blocked"):
        needed += [mirrors[api.name] for api in needed if api.name in mirrors and rng.random() < _COMPANION][:1]
    shown = _with_distractors(rng, needed, apis, partition, out_of_reach)
    return Plan(kind, apis, shown, faults, at_once)


def overlap(api: Api, other: Api) -> bool:
    """Whether two reading APIs look at a common column of one table."""
    reads = [{*one.gives, *one.formula.split(), one.of} - {""} for one in (api, other) if one.op in READING]
    return api.table == other.table and len(reads) == 2 and bool(reads[0] & reads[1])


def _fault(rng: Random, tool: str, kind: Kind) -> Fault:
    if kind == "retry":
        return Fault(tool, rng.choice(TRANSIENT), 1)
    return Fault(tool, NOT_AUTHORISED if rng.random() < _NOT_AUTHORISED else rng.choice(TRANSIENT))


def _mirrored(rng: Random, apis: Sequence[Api], shape: Shape) -> Api | None:
    mirrors = load_catalogue().mirrors
    found = [api for api in apis if api.name in mirrors]
    if shape == "I1":
        found = [api for api in found if mirrors[api.name].collection == api.collection]
    return rng.choice(found) if found else None


def _draft_calls(rng: Random, draft: Draft, partition: Partition, shape: Shape, kind: Kind) -> tuple[Api, ...] | None:
    form = kind if kind in ("single", "multi", "chain", "parallel") else _base_form(rng, shape, kind)
    if form == "chain":
        return _chain(rng, draft, partition, shape, kind)
    apis = _independent(rng, partition, shape, form, third=kind == "multi")
    if apis is None:
        return None
    special = 0 if kind == "missing" else rng.randrange(len(apis))  # what lacks something comes first
    for index, api in enumerate(apis):
        chosen = index == special
        turn = 0 if form == "parallel" else index
        if not draft.add(api, absent=kind == "empty" and chosen, omit=kind == "missing" and chosen, turn=turn):
            return None
    return apis


def _base_form(rng: Random, shape: Shape, kind: Kind) -> str:
    """What a task with a complication would be without it."""
    if shape == "I1":
        several = {"retry": 0.4, "empty": 0.3, "blocked": 0.15, "alternative": 0.15}.get(kind, 0.1)
        if rng.random() > several:
            return "single"
    forms = {"retry": ("multi", "chain", "parallel"), "empty": ("multi", "chain"), "blocked": ("multi", "chain")}
    return rng.choice(forms.get(kind, ("multi",)))


def _independent(rng: Random, partition: Partition, shape: Shape, form: str, third: bool) -> tuple[Api, ...] | None:
    parts = rng.choice(grouped(partition, shape))
    if form == "single":
        return (rng.choice(parts[0]),)
    if form == "parallel" and shape == "I1" and rng.random() < 0.6:
        twice = rng.choice(parts[0])
        return None if twice.op in ("compare", "cancel") else (twice, twice)
    count = 3 if form == "multi" and third and rng.random() < _THIRD_CALL else 2
    if shape == "I1":
        return tuple(rng.sample(parts[0], count)) if len(parts[0]) >= count else None
    chosen = rng.sample(parts, 2)
    apis = [rng.choice(part) for part in chosen]
    if count == 3:
        apis.append(rng.choice([api for part in parts for api in part]))
    return tuple(apis) if len(set(apis)) == len(apis) else None


def _chain(rng: Random, draft: Draft, partition: Partition, shape: Shape, kind: Kind) -> tuple[Api, ...] | None:
    pool = links(partition, shape)
    if not pool:
        return None
    draft.unambiguous = True
    source, choices = rng.choice(pool)
    link = rng.choice(choices)
    if not draft.add(source, absent=kind == "empty") or not draft.add(link.target, link=link, turn=1):
        return None
    apis = [source, link.target]
    onward = dict(pool).get(link.target, ())
    onward = [one for one in onward if one.target not in apis]
    if onward and kind == "chain" and rng.random() < 2 * _THIRD_CALL:
        second = rng.choice(onward)
        if not draft.add(second.target, link=second, turn=2):
            return None
        apis.append(second.target)
    return tuple(apis)


def _with_distractors(
    rng: Random, needed: Sequence[Api], apis: Sequence[Api], partition: Partition, out_of_reach: Sequence[Api]
) -> tuple[Api, ...]:
    """Fills the list up with APIs that nobody asks for, half of them from the same collections.

    What is out of reach stays so: no distractor reads the columns from which it could be worked out.
    """
    mirrors = load_catalogue().mirrors
    size = max(rng.choice(_LIST_SIZES), len(needed) + 1)
    shown = list(needed)
    nouns = {api.verb_noun for api in apis} | {api.verb_noun for api in shown}
    homes = {api.collection for api in apis}
    others = [
        api
        for api in originals(partition)
        if api.verb_noun not in nouns and api not in apis and not any(overlap(api, one) for one in out_of_reach)
    ]
    near = [api for api in others if api.collection in homes]
    while len(shown) < size:
        api = rng.choice(near if near and rng.random() < _SAME_COLLECTION else others)
        if api in shown:
            continue
        shown.append(api)
        mirror = mirrors.get(api.name)
        if mirror is not None and len(shown) < size and rng.random() < _STRAY_MIRROR:
            shown.append(mirror)
    rng.shuffle(shown)
    return tuple(shown)
