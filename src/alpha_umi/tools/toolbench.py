"""ToolBench's tool documents as tools without an executor.

A document is a collection: ``{"tool_name", "api_list": [{"name", "description", "required_parameters",
"optional_parameters", ...}]}`` (``toolenv/tools/<Category>/<tool>.json``). The ``api_list`` of an instruction file is
read too; there each API brings its ``tool_name``, and has ``api_name`` and ``api_description``. Names and schemas are
what ToolBench shows its own models, to the letter: ``<api>_for_<tool>``, ``NUMBER`` as an integer, ``optional`` beside
``required``, names in Chinese characters left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.records import BrokenLine, read_records, reason
from alpha_umi.errors import DataError
from alpha_umi.trajectory import Tool
from alpha_umi.validation import not_finite

NAME_LIMIT = 64
DESCRIPTION_LIMIT = 256
_TYPES = {"NUMBER": "integer", "STRING": "string", "BOOLEAN": "boolean"}
_RESERVED = frozenset(("from", "class", "return", "false", "true", "id", "and"))
_ILLEGAL = re.compile("[^\u4e00-\u9fa5^a-zA-Z0-9_]")


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Parameter(_Lenient):
    name: str
    type: str = "STRING"
    description: str = ""
    default: Any = ""


class _Api(_Lenient):
    name: str = Field(validation_alias=AliasChoices("api_name", "name"))
    description: str | None = Field("", validation_alias=AliasChoices("api_description", "description"))
    collection: str = Field("", validation_alias="tool_name")
    required: list[_Parameter] = Field([], validation_alias="required_parameters")
    optional: list[_Parameter] = Field([], validation_alias="optional_parameters")


class _Document(_Lenient):
    collection: str = Field("", validation_alias=AliasChoices("tool_name", "name", "title"))
    apis: list[_Api] = Field(validation_alias="api_list")


def read_toolbench(path: Path) -> tuple[Tool, ...]:
    """The tools of a document, of a list of them, or of all ``.json`` files in a folder, each tool once.

    Raises:
        DataError: A file can't be read or is no ToolBench document, or there are no tools.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    tools = {tool.schema: tool for file in files for tool in _tools(file)}
    if not tools:
        raise DataError(path, "it has no ToolBench tool documents")
    return tuple(tools.values())


def looks_like_toolbench(value: Any) -> bool:
    """Whether parsed JSON is a document, or a list of them."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and isinstance(first.get("api_list"), list)


def function_name(collection: str, api: str) -> str:
    """What ToolBench calls the function of an API; of a long name the end is kept, which names the collection."""
    return f"{unreserved_name(standard_name(api))}_for_{standard_name(collection)}"[-NAME_LIMIT:]


def toolbench_tool(api: Any, collection: str = "") -> Tool:
    """One entry of an ``api_list`` as a tool; ``collection`` is for entries that don't bring their own.

    Raises:
        pydantic.ValidationError: It is no such entry.
    """
    read = _Api.model_validate(api)
    return _tool(read, read.collection or collection)


def _tool(api: _Api, collection: str) -> Tool:
    """One API as ToolBench presents it."""
    name = function_name(collection, api.name)
    description = f'This is the subfunction for tool "{standard_name(collection)}", you can use this tool.'
    about = (api.description or "").strip()
    if about:
        about = about.replace(api.name, name)[:DESCRIPTION_LIMIT]
        description += f'The description of this function is: "{about}"'
    parameters = {
        "type": "object",
        "properties": dict(_property(parameter) for parameter in (*api.required, *api.optional)),
        "required": _names(api.required),
        "optional": _names(api.optional),
    }
    return Tool.of(name, description, parameters)


def _tools(path: Path) -> Iterator[Tool]:
    for number, record in enumerate(read_records(path)):
        try:
            if isinstance(record, BrokenLine):
                raise DataError(path, f"document {number}: {record.reason}")
            problem = not_finite(record)
            if problem is not None:
                raise DataError(path, f"document {number} is no JSON: {problem}")
            document = _Document.model_validate(record)
        except ValidationError as error:
            raise DataError(path, f"document {number} is no ToolBench tool: {reason(error)}") from error
        for api in document.apis:
            yield _tool(api, api.collection or document.collection)


def _property(parameter: _Parameter) -> tuple[str, dict[str, Any]]:
    schema = {
        "type": _TYPES.get(parameter.type, "string"),
        "description": parameter.description[:DESCRIPTION_LIMIT],
    }
    if str(parameter.default):
        schema["example_value"] = parameter.default
    return unreserved_name(standard_name(parameter.name)), schema


def _names(parameters: Sequence[_Parameter]) -> list[str]:
    return [unreserved_name(standard_name(parameter.name)) for parameter in parameters]


def standard_name(name: str) -> str:
    """A name in lower case, letters, digits and single underscores, not beginning with a digit."""
    text = re.sub("_+", "_", _ILLEGAL.sub("_", name)).lower().strip("_")
    return f"get_{text}" if text[:1].isdigit() else text


def unreserved_name(name: str) -> str:
    """A standard name that is no word of Python."""
    return f"is_{name}" if name in _RESERVED else name
