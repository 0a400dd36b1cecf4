"""Drafts a task call by call: tables to act on, arguments that fit them, and the words that ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from alpha_umi.toolworld.catalogue import Api, Collection, Field, Param, load_catalogue
from alpha_umi.toolworld.grammar import Segment, fill, phrase_values, refer, segments, spoken
from alpha_umi.toolworld.operations import rates_table
from alpha_umi.toolworld.tasks import Ref, Row, Step, Tables
from alpha_umi.toolworld.values import Vocabulary, draw

_ROWS = (3, 4)
_KEEP_OPTIONAL = 0.5
_SHARED_FILTER = 0.6


@dataclass(frozen=True)
class Link:
    """That the ``field`` an API gives can be the ``param`` of another."""

    source: Api
    field: str
    target: Api
    param: str


@dataclass
class Draft:
    """A task in the making.

    Attributes:
        rng: What everything random is drawn from.
        vocabulary: Where names come from.
        tables: Rows made so far.
        steps: Calls so far.
        requests: Their words.
        values: Everything the instruction gives, as text.
        missing: The parameter that was left out, if one was.
        unambiguous: Whether searches must find exactly one row, because another call goes on from it.
    """

    rng: Random
    vocabulary: Vocabulary
    tables: Tables = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    missing: str | None = None
    unambiguous: bool = False
    _taken: set[Any] = field(default_factory=set)
    _rows: list[Row] = field(default_factory=list)  # the row behind each step

    def rows(self, table: str) -> list[Row]:
        """The rows of a collection's table, drawn on first use."""
        if table not in self.tables:
            collection = load_catalogue().collections[table]
            self.tables[table] = [self._row(collection) for _ in range(self.rng.choice(_ROWS))]
            self._draw_rates(collection)
        return self.tables[table]

    def add(
        self, api: Api, *, link: Link | None = None, absent: bool = False, omit: bool = False, turn: int = 0
    ) -> bool:
        """Adds a call.

        Args:
            api: What is called.
            link: Takes one argument from the previous step's result.
            absent: Asks for something that no row has.
            omit: Leaves a required argument out of the request.
            turn: The turn of the call.

        Returns:
            Whether it can be done; the draft is of no use otherwise.
        """
        phrase = self.rng.choice(api.ask)
        given = self._kept(api, phrase, omit, link)
        if given is None:
            return False
        text, names = given
        if not names and not omit:
            return False
        row = self._choose_row(api, link)
        if row is None:
            return False
        fixed = phrase_values(text)
        arguments = {p.name: self._value(api, p, row, fixed) for p in api.params if p.name in names}
        if api.op == "convert":
            self._tell_units_apart(api, arguments)
        if absent and not self._make_absent(api, arguments):
            return False
        said = {name: spoken(value) for name, value in arguments.items()}
        self.values += [value for name, value in said.items() if link is None or name != link.param]
        if link is not None:
            text, said[link.param] = refer(text, api.param(link.param).field, link.field)
            arguments[link.param] = Ref(len(self.steps) - 1, link.field)
        self.steps.append(Step(api.name, arguments, turn))
        self.requests.append(fill(text, said))
        self._rows.append(row)
        return True

    def _draw(self, item: Field) -> Any:
        value = draw(self.rng, item, self.vocabulary, self._taken)
        if item.kind in ("name", "id"):
            self._taken.add(value)
        return value

    def _row(self, collection: Collection) -> Row:
        return {column.name: self._draw(column) for column in collection.columns}

    def _draw_rates(self, collection: Collection) -> None:
        for api in collection.apis:
            if api.op == "convert" and api.table == collection.name:
                units = api.params[1].field.options
                rates = [{"unit": unit, "rate": round(self.rng.uniform(0.2, 5.0), 2)} for unit in units]
                self.tables[rates_table(collection.name)] = rates

    def _kept(self, api: Api, phrase: str, omit: bool, link: Link | None) -> tuple[str, set[str]] | None:
        """The phrase without what is left out, and the parameters it names; None if nothing can be omitted."""
        required = {param.name for param in api.params if param.required}
        pieces = segments(phrase)
        linked = {link.param} if link else set()
        droppable = [
            piece
            for piece in pieces
            if piece.optional and required & set(piece.slots) and not linked & set(piece.slots)
        ]
        if omit and not droppable:
            return None
        dropped = self.rng.choice(droppable) if omit else None
        kept = [p for p in pieces if p is not dropped and (self._stays(p, required) or linked & set(p.slots))]
        if dropped is not None:
            self.missing = next(name for name in dropped.slots if name in required)
        return "".join(piece.text for piece in kept), {name for piece in kept for name in piece.slots}

    def _stays(self, piece: Segment, required: set[str]) -> bool:
        return not piece.optional or bool(required & set(piece.slots)) or self.rng.random() < _KEEP_OPTIONAL

    def _choose_row(self, api: Api, link: Link | None) -> Row | None:
        """A row no other step uses, or of a link the row that the result leads to."""
        rows = self.rows(api.table)
        if link is None:
            free = [row for row in rows if not any(row is used for used in self._rows)]
            return self.rng.choice(free) if free else None
        source = self._rows[-1]
        if link.source.table == api.table:
            return source
        row = self.rng.choice(rows)
        if link.param in api.keys:
            row[link.param] = source[link.field]
        return row

    def _value(self, api: Api, param: Param, row: Row, fixed: Mapping[str, bool]) -> Any:
        item = param.field
        if param.name in fixed:
            if param.name in api.keys:
                row[param.name] = fixed[param.name]
            return fixed[param.name]
        if item.kind == "list":
            return self._listed(item, row, self.rows(api.table))
        if item.column:
            return self._bound(item, row)
        if param.name in api.keys:
            if api.op == "search":
                self._share(item, row, self.rows(api.table))
            return row[param.name]
        value = self._draw(item)
        while api.op == "update" and value == row.get(param.name):
            value = self._draw(item)
        return value

    def _tell_units_apart(self, api: Api, arguments: dict[str, Any]) -> None:
        source, target = (param.name for param in api.params[1:3])
        if arguments.get(source) is not None and arguments.get(source) == arguments.get(target):
            options = [unit for unit in api.params[2].field.options if unit != arguments[source]]
            arguments[target] = self.rng.choice(options)

    def _listed(self, item: Field, row: Row, rows: list[Row]) -> list[Any]:
        others = [other for other in rows if other is not row]
        chosen = [row, *self.rng.sample(others, self.rng.choice((1, 1, 2)))]
        return [one[item.column] for one in chosen]

    def _bound(self, item: Field, row: Row) -> Any:
        number = row[item.column]
        room = max(1, round((item.high - item.low) * self.rng.uniform(0.02, 0.3)))
        return round(number + room if item.name.startswith("max_") else number - room, 1)

    def _share(self, item: Field, row: Row, rows: list[Row]) -> None:
        """Gives another row the same value, so that a search can find several."""
        if self.unambiguous or self.rng.random() > _SHARED_FILTER:
            return
        free = [other for other in rows if other is not row and not any(other is used for used in self._rows)]
        if free:
            self.rng.choice(free)[item.name] = row[item.name]

    def _make_absent(self, api: Api, arguments: dict[str, Any]) -> bool:
        """Replaces the first key that is a name or an id by one that no row has."""
        for name in api.keys:
            item = api.param(name).field
            if name in arguments and item.kind in ("name", "id"):
                arguments[name] = self._draw(item)
                return True
        return False
