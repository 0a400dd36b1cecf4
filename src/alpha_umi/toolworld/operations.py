"""The generic operations: how each kind of API reads or changes its table. They never raise on any arguments."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from alpha_umi.toolworld.catalogue import Api, Field, Param
from alpha_umi.toolworld.tasks import Row, Tables
from alpha_umi.toolworld.values import draw_id

Arguments = Mapping[str, Any]
STATUS = "status"
MAX_RESULTS = 3
_CLOSED = "closed"
_BIGGEST = 1e12
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "num": (int, float), "bool": (bool,), "list": (list,)}
_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "*": operator.mul, "+": operator.add, "-": operator.sub, "/": operator.truediv,
}  # fmt: skip


def rates_table(collection: str) -> str:
    """Name of the table with a collection's conversion rates."""
    return f"{collection}/rates"


def absence(record: str, param: Field, value: Any) -> str:
    """What is said when no row has this value: ``no booking with id BK-4821``."""
    if param.kind == "id":
        return f"no {record} with id {value}"
    if param.name == record:
        return f"no {record} named {value}"
    return f"no {record} with {param.name} {value}"


def argument_error(api: Api, arguments: Arguments) -> str | None:
    """The first thing wrong with the arguments, or None. A strict caller checks the schema before."""
    known = {param.name: param for param in api.params}
    for name, value in arguments.items():
        if name not in known:
            return f"unknown parameter {name}"
        if problem := _type_error(known[name], value):
            return problem
    missing = [param.name for param in api.params if param.required and param.name not in arguments]
    return f"missing parameter {missing[0]}" if missing else None


def _type_error(param: Param, value: Any) -> str | None:
    field = param.field
    types = _TYPES.get(field.kind, (str,))
    if not isinstance(value, types) or (isinstance(value, bool) and field.kind != "bool"):
        return f"{field.name} has the wrong type"
    if field.kind in ("int", "num") and not abs(value) < _BIGGEST:
        return f"{field.name} is out of range"
    if field.kind == "enum" and value not in field.options:
        return f"{field.name} must be one of {', '.join(field.options)}"
    return None


def execute(api: Api, tables: Tables, arguments: Arguments, seed: str) -> dict[str, Any]:
    """Runs an API on the tables (which it may change) and returns the observation, ``{"error": ...}`` if it can't."""
    if problem := argument_error(api, arguments):
        return {"error": problem}
    rows = tables.setdefault(api.table, [])
    if api.op == "search":
        return {"results": search(api, rows, arguments)}
    if api.op == "convert":
        return _convert(api, tables.get(rates_table(api.table), []), arguments)
    if api.op == "compare":
        return _compare(api, rows, arguments)
    if api.op == "create":
        return _create(api, rows, arguments, seed)
    row = find(api, rows, arguments)
    if row is None:
        return {"error": _not_found(api, rows, arguments)}
    if api.op == "get":
        return {name: row.get(name) for name in api.gives}
    if api.op == "compute":
        return _compute(api, row, arguments)
    return _change(api, row, arguments)


def find(api: Api, rows: list[Row], arguments: Arguments) -> Row | None:
    """The first row whose columns equal the key arguments."""
    keys = [name for name in api.keys if name in arguments]
    return next((row for row in rows if all(row.get(name) == arguments[name] for name in keys)), None)


def search(api: Api, rows: list[Row], arguments: Arguments) -> list[Any]:
    """The first gives-column of the rows that fit all filters, at most three."""
    fitting = [row for row in rows if all(_fits(api.param(name).field, row, v) for name, v in arguments.items())]
    return [row.get(api.gives[0]) for row in fitting[:MAX_RESULTS]]


def _fits(field: Field, row: Row, value: Any) -> bool:
    if not field.column:
        return row.get(field.name) == value
    number = row.get(field.column)
    if number is None:
        return False
    return number <= value if field.name.startswith("max_") else number >= value


def _not_found(api: Api, rows: list[Row], arguments: Arguments) -> str:
    for name in api.keys:
        if name in arguments and not any(row.get(name) == arguments[name] for row in rows):
            return absence(api.record, api.param(name).field, arguments[name])
    return f"no {api.record} fits all of that"


def _tidy(number: float) -> float | int:
    rounded = round(number, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _convert(api: Api, rates: list[Row], arguments: Arguments) -> dict[str, Any]:
    amount, source, target = (arguments[param.name] for param in api.params[:3])
    factors = {row["unit"]: row["rate"] for row in rates}
    if source not in factors or target not in factors:
        return {"error": f"no rate from {source} to {target}"}
    return {api.gives[0]: _tidy(amount * factors[target] / factors[source])}


def _compute(api: Api, row: Row, arguments: Arguments) -> dict[str, Any]:
    first, *rest = api.formula.split()
    known = {**row, **arguments}

    def term(text: str) -> float:
        value = known.get(text) if text.isidentifier() else float(text)
        return 0.0 if value is None else value

    total = term(first)
    for sign, text in zip(rest[::2], rest[1::2], strict=True):
        if sign == "/" and term(text) == 0:
            return {"error": f"{text} must not be 0"}
        total = _OPERATORS[sign](total, term(text))
    return {api.gives[0]: _tidy(total)}


def _compare(api: Api, rows: list[Row], arguments: Arguments) -> dict[str, Any]:
    field = api.params[0].field
    wanted = arguments[field.name]
    chosen = [row for name in wanted for row in rows if row.get(field.column) == name][:50]
    known = {row[field.column] for row in chosen}
    unknown = next((name for name in wanted if not isinstance(name, str) or name not in known), None)
    if unknown is not None or not chosen:
        return {"error": f"no {api.record} named {unknown}" if wanted else f"{field.name} is empty"}
    values = [row for row in chosen if row.get(api.of) is not None]
    if not values:
        return {"error": f"no {api.of} is known"}
    best = (min if api.pick == "min" else max)(values, key=lambda row: row[api.of])
    return {api.gives[0]: best[field.column], api.of: best[api.of]}


def _create(api: Api, rows: list[Row], arguments: Arguments, seed: str) -> dict[str, Any]:
    name = api.gives[0]
    values = json.dumps([api.table, sorted(arguments.items())], sort_keys=True)
    # The id follows from the contents, so the order of independent creations does not matter.
    taken = {row.get(name) for row in rows}
    new_id = draw_id(Random(f"{seed} {values}"), api.prefix, taken)
    rows.append({name: new_id, **arguments, STATUS: "created"})
    return {name: new_id, STATUS: "created"}


def _change(api: Api, row: Row, arguments: Arguments) -> dict[str, Any]:
    key = api.params[0].name
    if row.get(_CLOSED):
        return {"error": f"{api.record} {arguments[key]} is already {row[STATUS]}"}
    if api.op == "cancel":
        row.update({STATUS: api.done, _CLOSED: True})
        return {key: arguments[key], STATUS: api.done}
    changes = {name: value for name, value in arguments.items() if name != key}
    row.update(changes)
    return {key: arguments[key], **changes}
