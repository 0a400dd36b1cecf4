"""An open world: any instruction may be put to it, and whatever name or id a call mentions exists.

A task's world has tables that were drawn with its instruction. Here the instruction comes from a person, so a row is
drawn when a call first asks for it: the same name gives the same row in every run with the same seed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from alpha_umi.toolworld.catalogue import Api, Collection, load_catalogue
from alpha_umi.toolworld.operations import argument_error, execute, find, rates_table, search
from alpha_umi.toolworld.tasks import Row, Tables
from alpha_umi.toolworld.values import draw
from alpha_umi.toolworld.world import copied
from alpha_umi.trajectory import Tool

_WORD = re.compile(r"[a-z]{3,}")
_ROWS_FOUND = 2
_DULL = frozenset(
    ("and", "for", "the", "then", "this", "that", "tell", "give", "get", "what", "please", "with", "you", "can")
)


def relevant_tools(instruction: str, count: int = 5) -> tuple[Tool, ...]:
    """The ``count`` training APIs whose words the instruction shares most, rarer words counting more."""
    apis = [api for item in load_catalogue().partition("train") for api in item.apis if api.mirror_of is None]
    words = {
        api.name: _words(" ".join((api.about, api.record, *api.ask, *(param.field.words for param in api.params))))
        for api in apis
    }
    spread = {word: sum(word in known for known in words.values()) for known in words.values() for word in known}
    wanted = _words(instruction)

    def score(api: Api) -> float:
        return sum(1.0 / spread[word] for word in wanted & words[api.name])

    best = sorted(apis, key=lambda api: (-score(api), api.name))[:count]
    return tuple(api.tool for api in sorted(best, key=lambda api: Random(f"{instruction}/{api.name}").random()))


def _words(text: str) -> frozenset[str]:
    return frozenset(word.rstrip("s") for word in _WORD.findall(text.lower()) if word not in _DULL)


class OpenWorld:
    """The tools for one instruction, over tables that are made up as they are asked for.

    Args:
        instruction: What the user says; it decides which tools are offered.
        seed: Decides what the rows hold.
        count: Tools offered.
    """

    def __init__(self, instruction: str, seed: str = "open", count: int = 5) -> None:
        self.seed = seed
        self._tools = relevant_tools(instruction, count)
        self._tables: Tables = {}

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that can be called."""
        return self._tools

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Calls a tool and returns its observation, compact JSON; ``{"error": ...}`` where it makes no sense."""
        api = load_catalogue().apis.get(name)
        if api is None or name not in {tool.name for tool in self._tools}:
            return json.dumps({"error": f"no tool named {name}"})
        if argument_error(api, arguments) is None:
            self._make_up(api, arguments)
        return json.dumps(execute(api, self._tables, arguments, self.seed), ensure_ascii=False)

    def snapshot(self) -> object:
        """The rows as they are now; opaque, for ``restore``."""
        return copied(self._tables)

    def restore(self, snapshot: object) -> None:
        """Goes back to a snapshot of this world, which can be used again.

        Raises:
            TypeError: It is no snapshot of an OpenWorld.
        """
        if not isinstance(snapshot, dict):
            raise TypeError(f"not an OpenWorld snapshot: {type(snapshot).__name__}")
        self._tables = copied(snapshot)

    def _make_up(self, api: Api, arguments: Mapping[str, Any]) -> None:
        collection = load_catalogue().collections[api.table]
        rows = self._tables.setdefault(api.table, [])
        if api.op == "convert":
            units = api.params[1].field.options
            rng = Random(f"{self.seed}/rates/{api.table}")
            self._tables.setdefault(
                rates_table(api.table), [{"unit": u, "rate": round(rng.uniform(0.2, 5.0), 2)} for u in units]
            )
        elif api.op == "search":
            while len(search(api, rows, arguments)) < _ROWS_FOUND:
                rows.append(self._row(collection, _columns(api, arguments), len(rows)))
        elif api.op == "compare":
            field = api.params[0].field
            known = {row.get(field.column) for row in rows}
            names = (value for value in arguments[field.name] if isinstance(value, str) and value not in known)
            rows += [self._row(collection, {field.column: name}, 0) for name in dict.fromkeys(names)]
        elif api.op != "create" and find(api, rows, arguments) is None:
            rows.append(self._row(collection, {name: arguments[name] for name in api.keys if name in arguments}, 0))

    def _row(self, collection: Collection, fixed: Mapping[str, Any], number: int) -> Row:
        rng = Random(f"{self.seed}/{collection.name}/{sorted(fixed.items())!r}/{number}")
        return {column.name: draw(rng, column, "train") for column in collection.columns} | dict(fixed)


def _columns(api: Api, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Column values under which a search finds the row; a bound is met exactly."""
    return {api.param(name).field.column or name: value for name, value in arguments.items()}
