"""What is asked in a world: StableToolBench's files of queries, or one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.records import BrokenLine, read_records, reason
from alpha_umi.errors import DataError, UserError
from alpha_umi.tools.toolbench import toolbench_tool
from alpha_umi.trajectory import Tool
from alpha_umi.worlds.protocol import ApiName

NAMED = AliasChoices("query_id", "id")


class _Own(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    query: str = Field(validation_alias=AliasChoices("query", "instruction"), min_length=1)
    id: str | None = Field(None, validation_alias=NAMED)


class _Query(_Own):
    apis: list[dict[str, Any]] = Field(validation_alias="api_list", min_length=1)


@dataclass(frozen=True)
class Query:
    """One query.

    Attributes:
        id: Unique in its set.
        number: Its place in the set.
        split: The set: its file's name.
        text: What the user asks.
        tools: What the agent is shown; empty for one's own queries.
        apis: The API behind each of the tools, by its name.
    """

    id: str
    number: int
    split: str
    text: str
    tools: tuple[Tool, ...] = ()
    apis: Mapping[str, ApiName] = field(default_factory=dict)


def read_stabletoolbench(paths: Sequence[Path]) -> list[Query]:
    """The queries of StableToolBench's files, with their APIs as ToolBench shows them.

    Of APIs of a query that have the same function name, which keeps only the end of a long one, the first is shown.

    Raises:
        DataError: A file can't be read, or a record is no query with an ``api_list``.
        UserError: Two sets have one name, or two queries of a set one id.
    """
    return _distinct([query for path in paths for query in _read(path, _Query)], paths)


def read_own(paths: Sequence[Path]) -> list[Query]:
    """Queries in JSON or JSONL, each an object with ``query`` (or ``instruction``) and perhaps ``id``, or a text.

    Raises:
        DataError: A file can't be read, or a record is no query.
        UserError: Two sets have one name, or two queries of a set one id.
    """
    return _distinct([query for path in paths for query in _read(path, _Own)], paths)


def _read(path: Path, kind: type[_Own]) -> Iterator[Query]:
    found = False
    for number, record in enumerate(read_records(path)):
        found = True
        if isinstance(record, BrokenLine):
            raise DataError(path, f"query {number}: {record.reason}")
        try:
            read = kind.model_validate({"query": record} if isinstance(record, str) else record)
            tools, apis = _tools(read.apis) if isinstance(read, _Query) else ((), {})
        except ValidationError as error:
            raise DataError(path, f"query {number}: {reason(error)}") from error
        yield Query(read.id or str(number), number, path.name.partition(".")[0], read.query, tools, apis)
    if not found:
        raise DataError(path, "there are no queries in it")


def _tools(apis: Sequence[Mapping[str, Any]]) -> tuple[tuple[Tool, ...], dict[str, ApiName]]:
    tools: dict[str, Tool] = {}
    names: dict[str, ApiName] = {}
    for api in apis:
        tool = toolbench_tool(api)
        if tool.name not in tools:
            named = (str(api.get(key, "")) for key in ("category_name", "tool_name", "api_name"))
            tools[tool.name], names[tool.name] = tool, ApiName.of(*named)
    return tuple(tools.values()), names


def _distinct(queries: list[Query], paths: Sequence[Path]) -> list[Query]:
    if len({path.name.partition(".")[0] for path in paths}) < len(paths):
        raise UserError("--queries: two files have the same name, and each is a set by its name; rename one")
    seen: set[tuple[str, str]] = set()
    for query in queries:
        if (query.split, query.id) in seen:
            raise UserError(
                f"--queries: the id {query.id!r} is there twice in {query.split}; each needs one of its own"
            )
        seen.add((query.split, query.id))
    return queries
