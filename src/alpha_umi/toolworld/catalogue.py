"""The catalogue: categories, collections and APIs, read from one TOML table a category.

A collection is one table of records with the APIs that act on it. A row of ``apis`` names a generic operation (``op``)
and its columns; nothing else is needed to add an API:

    get      the first row whose columns equal the arguments, and its ``gives`` columns
    search   the first gives-column of all rows that fit (``max_x`` and ``min_x`` bound column ``x``)
    compute  finds a row by the first argument and evaluates ``formula`` over its columns and the other arguments
    compare  of the rows in a list argument, the one with the ``pick`` (min or max) of column ``of``
    convert  an amount from one unit to another by the collection's seeded rates
    create   adds a row; update changes columns of the row the first argument names; cancel closes it
    mirror   the same as another API, under another name

A field is written ``name = kind args; words``, where kind is ``int``, ``num``, ``enum``, ``bool``, ``date``, ``time``,
``id PREFIX``, ``list COLUMN``, or anything else for a name of that sort (``person``, ``place``, ...). The sort of a
name, or a word after a number's range, is what links the result of one API to the argument of another. In ``ask`` and
``answer``, ``{x}`` is a value, ``{+x}`` says a boolean is true, and ``[...]`` can be left out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal

from alpha_umi.trajectory import Tool

Partition = Literal["train", "tool", "cat"]
READING = frozenset({"get", "search", "compute", "compare", "convert"})
WRITING = frozenset({"create", "update", "cancel"})
_NUMBER = re.compile(r"(-?[\d.]+)\.\.(-?[\d.]+)\s*(\w*)")
_JSON_TYPES = {"int": "integer", "num": "number", "bool": "boolean", "list": "array"}
SLOT = re.compile(r"\{([+-]?)(\w+)\}")
SEGMENT = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Field:
    """A column of a table, or an input that only a call has.

    Attributes:
        name: Name of the column and of the parameter.
        kind: name, id, int, num, enum, bool, date, time or list.
        words: What the schema and a question to the user call it, at most four words.
        link: Sort of value; results and arguments of the same sort can be chained. Empty if it links to nothing.
        low: Least number.
        high: Greatest number.
        options: Allowed words of an enum.
        prefix: Prefix of an id.
        column: The column a list holds values of, or a bound (``max_price``) applies to.
    """

    name: str
    kind: str
    words: str
    link: str = ""
    low: float = 0
    high: float = 0
    options: tuple[str, ...] = ()
    prefix: str = ""
    column: str = ""

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the parameter; a description only where it says more than the name."""
        out: dict[str, Any] = {"type": _JSON_TYPES.get(self.kind, "string")}
        if self.kind == "enum":
            out["enum"] = list(self.options)
        if self.kind == "list":
            out["items"] = {"type": "string"}
        if self.words != self.name.replace("_", " "):
            out["description"] = self.words
        return out


@dataclass(frozen=True)
class Param:
    """A parameter of an API."""

    field: Field
    required: bool = True

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.field.name


@dataclass(frozen=True, eq=False)
class Api:
    """One executable function; compared by identity, there is one object an API.

    Attributes:
        name: Full name, ``<collection>_<verb>_<noun>``.
        op: Generic operation, already that of the original where this is a mirror.
        about: What it does, an imperative sentence without a full stop.
        params: Parameters in schema order.
        gives: Columns or keys of the observation.
        ask: Phrases of a request; noun phrases if the operation reads, verb phrases if it writes.
        answer: A sentence that reports the result; its slots are the facts that an answer must hold.
        collection: The collection that offers it.
        table: The collection whose table it acts on; another one than ``collection`` for some mirrors.
        category: The category.
        record: What a row of the table is called.
        formula: Of compute: terms and operators, evaluated from left to right.
        of: Of compare: the column compared.
        pick: Of compare: min or max.
        done: Of cancel: the status afterwards.
        prefix: Prefix of the ids of the table's records, if they have ids.
        mirror_of: Full name of the API it does the same as, or None.
    """

    name: str
    op: str
    about: str
    params: tuple[Param, ...]
    gives: tuple[str, ...]
    ask: tuple[str, ...]
    answer: str
    collection: str
    table: str
    category: str
    record: str
    formula: str = ""
    of: str = ""
    pick: str = ""
    done: str = ""
    prefix: str = ""
    mirror_of: str | None = None

    @cached_property
    def verb_noun(self) -> str:
        """The name without its collection."""
        return self.name.partition("_")[2]

    @cached_property
    def tool(self) -> Tool:
        """The function schema that a model is shown."""
        properties = {param.name: param.field.schema() for param in self.params}
        parameters: dict[str, Any] = {"type": "object", "properties": properties}
        required = [param.name for param in self.params if param.required]
        if required:
            parameters["required"] = required
        return Tool.of(self.name, self.about + ".", parameters)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Parameters that select rows, as opposed to new values and inputs."""
        if self.op in ("get", "search"):
            return tuple(param.name for param in self.params)
        return (self.params[0].name,) if self.op in ("compute", "update", "cancel") else ()

    def param(self, name: str) -> Param:
        """The parameter of that name."""
        return next(param for param in self.params if param.name == name)


@dataclass(frozen=True)
class Collection:
    """One provider: a table of records and the APIs that act on it."""

    name: str
    category: str
    record: str
    columns: tuple[Field, ...]
    apis: tuple[Api, ...]
    partition: Partition


@dataclass(frozen=True)
class Category:
    """A topic with several collections."""

    name: str
    title: str
    held_out: bool
    collections: tuple[Collection, ...]


@dataclass(frozen=True)
class Catalogue:
    """All categories, with indexes by name."""

    categories: tuple[Category, ...]

    @cached_property
    def collections(self) -> dict[str, Collection]:
        """Collections by name."""
        return {item.name: item for category in self.categories for item in category.collections}

    @cached_property
    def apis(self) -> dict[str, Api]:
        """APIs by full name."""
        return {api.name: api for collection in self.collections.values() for api in collection.apis}

    @cached_property
    def mirrors(self) -> dict[str, Api]:
        """For an API's name, the one that does the same."""
        return {api.mirror_of: api for api in self.apis.values() if api.mirror_of}

    def partition(self, name: Partition) -> tuple[Collection, ...]:
        """The collections of one data partition."""
        return tuple(item for item in self.collections.values() if item.partition == name)


@cache
def load_catalogue() -> Catalogue:
    """Reads the packaged catalogue, once a process."""
    folder = files("alpha_umi.toolworld") / "catalogue"
    texts = sorted((entry.name, entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return parse_catalogue(tomllib.loads(text) for _, text in texts)


def parse_catalogue(documents: Iterable[Mapping[str, Any]]) -> Catalogue:
    """Builds the catalogue from parsed TOML documents, one a category.

    Raises:
        ValueError: A row names a field, an operation or an API that does not exist, or a name occurs twice.
    """
    categories = []
    for document in documents:
        held_out = bool(document.get("held_out"))
        collections = tuple(_collection(row, document["name"], held_out) for row in document["collections"])
        categories.append(Category(document["name"], document["title"], held_out, collections))
    names = [api.name for c in categories for item in c.collections for api in item.apis]
    if len(set(names)) < len(names):
        raise ValueError("two APIs of the catalogue have one name")
    return _resolve_mirrors(Catalogue(tuple(categories)))


def parse_field(text: str) -> Field:
    """Reads ``name = kind args; words``."""
    head, _, words = text.partition(";")
    name, _, spec = (part.strip() for part in head.partition("="))
    kind, _, rest = spec.partition(" ")
    field = Field(name, kind, words.strip() or name.replace("_", " "))
    if kind in ("int", "num"):
        match = _NUMBER.fullmatch(rest)
        if match is None:
            raise ValueError(f"field {text!r}: a number needs a range such as 1..9")
        return replace(field, low=float(match[1]), high=float(match[2]), link=match[3])
    if kind == "enum":
        return replace(field, options=tuple(rest.split("|")))
    if kind == "id":
        return replace(field, prefix=rest)
    if kind == "list":
        return replace(field, column=rest)
    if kind in ("bool", "date", "time"):
        return field
    return replace(field, kind="name", link=kind)


def _collection(row: Mapping[str, Any], category: str, held_out: bool) -> Collection:
    fields = {field.name: field for field in map(parse_field, row["fields"])}
    fields = {n: replace(f, link=f"{row['name']} {n}") if f.kind == "id" else f for n, f in fields.items()}
    apis = tuple(_api(api, row, fields, category) for api in row["apis"])
    inputs = {p.name for api in apis if api.op == "convert" for p in api.params}
    inputs |= {p.name for api in apis if api.op == "compute" for p in api.params[1:]}
    columns = tuple(f for f in fields.values() if f.kind != "list" and f.name not in inputs)
    partition: Partition = "cat" if held_out else "tool" if row.get("held_out") else "train"
    return Collection(row["name"], category, row["record"], columns, apis, partition)


def _api(row: Mapping[str, Any], collection: Mapping[str, Any], fields: Mapping[str, Field], category: str) -> Api:
    prefix = collection["name"]
    home = {"collection": prefix, "table": prefix, "category": category, "record": collection["record"]}
    full = f"{prefix}_{row['name']}"
    if "mirror" in row:
        own = {other["name"] for other in collection["apis"]}
        original = f"{prefix}_{row['mirror']}" if row["mirror"] in own else row["mirror"]
        return Api(full, "mirror", "", (), (), (), "", mirror_of=original, **home)
    if row["op"] not in READING | WRITING:
        raise ValueError(f"{full}: no operation {row['op']!r}")
    params = tuple(Param(_param_field(arg.rstrip("?"), fields, full), not arg.endswith("?")) for arg in row["args"])
    asks = (row["ask"],) if isinstance(row["ask"], str) else tuple(row["ask"])
    ids = next((field.prefix for field in fields.values() if field.kind == "id"), "")
    more = {key: row[key] for key in ("formula", "of", "pick", "done") if key in row}
    return Api(
        full, row["op"], row["about"], params, tuple(row["gives"]), asks, row["answer"], prefix=ids, **home, **more
    )


def _param_field(name: str, fields: Mapping[str, Field], api: str) -> Field:
    if name in fields:
        return fields[name]
    bound, _, column = name.partition("_")
    if bound not in ("max", "min") or column not in fields:
        raise ValueError(f"{api}: no field {name!r}")
    words = f"{'highest' if bound == 'max' else 'lowest'} {column.replace('_', ' ')}"
    return replace(fields[column], name=name, words=words, link="", column=column)


def _resolve_mirrors(catalogue: Catalogue) -> Catalogue:
    apis = catalogue.apis

    def resolved(api: Api) -> Api:
        if api.mirror_of is None:
            return api
        original = apis.get(api.mirror_of)
        if original is None or original.mirror_of:
            raise ValueError(f"{api.name}: there is no API {api.mirror_of!r} to mirror")
        about = f"Same as {original.name}, if that fails"
        return replace(original, name=api.name, about=about, collection=api.collection, mirror_of=original.name)

    return Catalogue(
        tuple(
            replace(
                category,
                collections=tuple(replace(c, apis=tuple(map(resolved, c.apis))) for c in category.collections),
            )
            for category in catalogue.categories
        )
    )
