"""Seal-Tools: queries with the calls that answer them, over a file of tools.

A record is ``{"id", "query", "calling": [{"api", "parameters", "responses"}]}``; ``tool.jsonl`` beside it (or
``--tools``) holds the tools, each of a field such as ``Sports/Tennis``. The data has no observations, no rationales and
no answers: the trajectory ends in one turn with all the calls. ``responses`` names the values a call returns
(``API_call_0``, …); a later call may take such a name as an argument, so not all of these calls could be made at once.
The names are in ``extra["seal-tools"]["responses"]``, a list a call.

A record only names the tools it uses, so its list is filled up with others of the same fields, seeded by the record
itself: the same record gets the same list wherever it stands.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.call_texts import type_schema
from alpha_umi.data.format import Format, Options
from alpha_umi.data.records import RecordError, read_records, reason, source_files
from alpha_umi.data.tool_schemas import keep, make_call
from alpha_umi.data.traject_bench import function_names
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, Tool, Trajectory, UserMessage, json_text

NAMESPACE = "seal-tools"
DISTRACTORS = 5
"""How many tools beside the used ones a list has, if their fields have so many."""

_TOOL_FILES = ("tool.jsonl", "tool.jsonl.xz", "tool.json")
_OTHER_FILES = (*_TOOL_FILES, "field.jsonl", "field.jsonl.xz", "field.json")


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Parameter(_Open):
    type: str = ""
    description: str = ""


class _Document(_Open):
    name: str = Field(alias="api_name", min_length=1)
    description: str = Field("", alias="api_description")
    field: str = ""
    parameters: dict[str, _Parameter] = {}
    required: list[str] = []

    def main_field(self) -> str:
        """``Sports`` of ``Sports/Tennis``."""
        return self.field.partition("/")[0]


class _Call(_Open):
    api: str = Field(min_length=1)
    parameters: dict[str, Any] = {}
    responses: list[str] = []


class _Record(_Open):
    id: str
    query: str = Field(min_length=1)
    calling: list[_Call] = Field(min_length=1)


@dataclass(frozen=True)
class Catalogue:
    """The tool documents of a file, by name and by main field."""

    documents: Mapping[str, _Document]
    fields: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """Reads a file of tool documents.

        Raises:
            DataError: The file can't be read, or an entry is no tool document.
        """
        documents: dict[str, _Document] = {}
        fields: dict[str, list[str]] = {}
        for number, entry in enumerate(read_records(path)):
            try:
                document = _Document.model_validate(entry)
            except ValidationError as error:
                raise DataError(path, f"tool document {number}: {reason(error)}") from error
            if document.name not in documents:
                fields.setdefault(document.main_field(), []).append(document.name)
            documents[document.name] = document
        return cls(documents, fields)

    @classmethod
    def beside(cls, file: Path, options: Options) -> Catalogue:
        """The file of ``--tools``, or ``tool.jsonl`` beside the records.

        Raises:
            DataError: There is none, or it can't be read.
        """
        if options.tools is not None:
            return cls.read(options.tools)
        for name in _TOOL_FILES:
            if (file.parent / name).is_file():
                return cls.read(file.parent / name)
        raise DataError(file, f"its tools are missing: expected {_TOOL_FILES[0]} beside it (or name them with --tools)")


def read(record: Any, name: str, catalogue: Catalogue) -> Trajectory:
    """Makes a trajectory of one record, with the tool documents of its file."""
    parsed = _Record.model_validate(record)
    names = _names(parsed, catalogue)
    calls = tuple(
        make_call(f"call_{number}", names[call.api], json_text(call.parameters))
        for number, call in enumerate(parsed.calling, 1)
    )
    responses = [call.responses for call in parsed.calling]
    turn = AssistantMessage(tool_calls=calls, extra=keep(NAMESPACE, {"responses": responses}))
    tools = tuple(_tool(names[one], catalogue.documents[one]) for one in names)
    origin = {"id": parsed.id} | (parsed.model_extra or {})
    return Trajectory(tools, (UserMessage(parsed.query), turn), name, keep(NAMESPACE, origin))


def looks_like(record: Any) -> bool:
    """Whether it has a query and a list of ``calling`` with an api each."""
    calling = record.get("calling") if isinstance(record, dict) else None
    if not isinstance(calling, list) or not calling or not isinstance(record.get("query"), str):
        return False
    return all(isinstance(call, dict) and "api" in call for call in calling)


def _names(record: _Record, catalogue: Catalogue) -> dict[str, str]:
    """Function names of the used tools and the distractors, by their names here, in the order of the list."""
    used = list(dict.fromkeys(call.api for call in record.calling))
    if any(name not in catalogue.documents for name in used):
        raise RecordError("calling[].api: a tool that the file of tools doesn't have")
    seed = hashlib.sha256(f"{record.id}\n{record.query}".encode("utf-8", "surrogatepass"))
    chance = random.Random(seed.digest())
    fields = dict.fromkeys(catalogue.documents[name].main_field() for name in used)
    others = [name for one in fields for name in catalogue.fields[one] if name not in used]
    listed = used + chance.sample(others, min(len(others), DISTRACTORS))
    chance.shuffle(listed)
    names = function_names(listed)
    return {name: names[name] for name in listed}


def _tool(name: str, document: _Document) -> Tool:
    properties = {key: _property(parameter) for key, parameter in document.parameters.items()}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if document.required:
        parameters["required"] = list(dict.fromkeys(document.required))
    more = document.model_extra or {}
    notes = {"api_name": document.name, "field": document.field} | (
        {"responses": more["responses"]} if "responses" in more else {}
    )
    return Tool.of(name, document.description, parameters, keep(NAMESPACE, notes))


def _property(parameter: _Parameter) -> dict[str, Any]:
    return type_schema(parameter.type) | ({"description": parameter.description} if parameter.description else {})


def _files(path: str | Path) -> list[Path]:
    """Of a folder, the files that aren't tools or fields."""
    return [file for file in source_files(path) if file == Path(path) or file.name not in _OTHER_FILES]


FORMAT = Format(
    "seal-tools", "Seal-Tools queries with their calls, with tool.jsonl beside them or in --tools",
    read, looks_like, context=Catalogue.beside, files=_files,
)  # fmt: skip
