"""Documentation of APIs: what a simulator goes by, and which APIs there are.

It is read from ToolBench's tool documents (``tools/<Category>/<collection>.json``) and from files of queries, whose
``api_list`` has the same, with the form of a reply (``template_response``) beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.records import BrokenLine, read_records, reason
from alpha_umi.errors import DataError
from alpha_umi.worlds.protocol import ApiName

_SHOWN = ("required_parameters", "optional_parameters", "method", "template_response")


class _Api(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(validation_alias=AliasChoices("api_name", "name"))
    description: str | None = Field("", validation_alias=AliasChoices("api_description", "description"))
    collection: str = Field("", validation_alias="tool_name")
    category: str = Field("", validation_alias="category_name")


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore")

    collection: str = Field("", validation_alias=AliasChoices("tool_name", "name", "title"))
    about: str | None = Field("", validation_alias="tool_description")
    apis: list[_Api] = Field(validation_alias="api_list")


class Documents:
    """What is known of APIs, by name; the first document of a name counts.

    Args:
        paths: Files, or folders that are searched for ``.json`` files.

    Raises:
        DataError: A path can't be read, or a file is neither tool documents nor queries.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._known: dict[ApiName, dict[str, Any]] = {}
        for path in paths:
            for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
                for name, document in _read(file):
                    self._known.setdefault(name, document)

    def get(self, name: ApiName) -> dict[str, Any] | None:
        """The document of an API as JSON; None if there is none."""
        return self._known.get(name)

    def __len__(self) -> int:
        """How many APIs are documented."""
        return len(self._known)


def _read(file: Path) -> Iterator[tuple[ApiName, dict[str, Any]]]:
    for number, record in enumerate(read_records(file)):
        if isinstance(record, BrokenLine):
            raise DataError(file, f"document {number}: {record.reason}")
        try:
            document = _Document.model_validate(record)
        except ValidationError as error:
            raise DataError(file, f"record {number} has no ToolBench api_list: {reason(error)}") from error
        for api in document.apis:
            collection = api.collection or document.collection
            yield ApiName.of(api.category or file.parent.name, collection, api.name), _shown(api, collection, document)


def _shown(api: _Api, collection: str, document: _Document) -> dict[str, Any]:
    more = api.model_extra or {}
    shown = {"tool": collection, "tool_description": document.about, "api": api.name, "description": api.description}
    return {key: value for key, value in (shown | {key: more.get(key) for key in _SHOWN}).items() if value}
