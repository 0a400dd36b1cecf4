"""Reads an OpenAPI document, and its schemas as plain JSON Schema.

Only references into the document itself (``#/...``) are followed; nothing that a document names is ever fetched.
What can't be used raises `Unusable`, for the operation that needs it alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable

from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml the slow one

_MAX_DEPTH = 200  # levels of a YAML document
_MAX_MERGED = 10_000  # keys of a YAML mapping after its merges
_MAX_VALUES = 2_000_000  # of a YAML document
_MAX_CHAIN = 20  # references from one to the next


class Unusable(Exception):
    """One operation of a document can't become a tool; says why."""


@dataclass(frozen=True)
class Document:
    """An OpenAPI document.

    Attributes:
        root: The whole document.
        url: Where it was fetched from, or None for a file.
    """

    root: dict[str, Any]
    url: str | None = None

    @property
    def is_3_0(self) -> bool:
        """Whether it is of OpenAPI 3.0, whose schemas differ from JSON Schema."""
        return str(self.root["openapi"]).startswith("3.0")

    def look_up(self, reference: object) -> Any:
        """What a local reference points to.

        Raises:
            Unusable: It points outside the document, or to nothing.
        """
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Unusable(f"$ref {str(reference)[:200]!r} leads out of the document and is not followed")
        try:
            resource = Registry().with_resource("", Resource.opaque(self.root))
            return resource.resolver().lookup(reference).contents
        except (Unresolvable, LookupError, TypeError, ValueError) as error:
            raise Unusable(f"$ref {reference[:200]!r} leads to nothing") from error

    def resolved(self, node: object) -> dict[str, Any]:
        """An object of the document, behind its references if it is one.

        Raises:
            Unusable: It is no object, or the references can't be followed.
        """
        for _ in range(_MAX_CHAIN):
            if not isinstance(node, dict):
                raise Unusable("an object was expected, and something else is there")
            if "$ref" not in node:
                return node
            node = self.look_up(node["$ref"])
        raise Unusable("its $refs go round in a circle")

    def objects(self, *keys: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The members of a nested object (such as ``components``, ``securitySchemes``); nothing where there is none."""
        node: Any = self.root
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        for name, member in node.items() if isinstance(node, dict) else ():
            yield str(name), member


def parse_document(text: str, where: str, url: str | None = None) -> Document:
    """Reads JSON or YAML.

    Args:
        text: The document.
        where: What the user gave, for messages.
        url: Where it was fetched from, or None.

    Raises:
        UserError: It is neither, or no OpenAPI 3 document.
    """
    root = _parse(text, where)
    if not isinstance(root, dict):
        raise UserError(f"{where} is no OpenAPI document: it holds no object; give one of OpenAPI 3.0 or 3.1")
    version = str(root.get("openapi", ""))
    if not version.startswith("3."):
        given = f"Swagger {root['swagger']}" if "swagger" in root else f"OpenAPI {version or 'of no version'}"
        raise UserError(f"{where} is {given}; documents of OpenAPI 3.0 and 3.1 can be used: convert it to one of them")
    return Document(root, url)


def _parse(text: str, where: str) -> Any:
    try:
        return _encodable(_json_or_yaml(text), text)
    except RecursionError:
        raise UserError(f"{where} is nested too deeply to be an OpenAPI document") from None
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        what = f"{line}{problem.splitlines()[0][:200]}"
        raise UserError(f"{where} can't be read as JSON or YAML: {what}; correct it there") from error


def _json_or_yaml(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        _check_depth(text)
        root = yaml.load(text, Loader=_Loader)
        _check_size(root, {})
        return root


def _encodable(root: Any, text: str) -> Any:
    """The document without halves of surrogate pairs, which an escape can write and no request can carry."""
    if "\\ud" not in text.lower():
        return root
    return json.loads(json.dumps(root, ensure_ascii=False, default=str, skipkeys=True).encode("utf-8", "replace"))


class _Loader(_SafeLoader):
    """YAML as OpenAPI means it: dates and yes/no/on/off stay strings; merges that would fill the memory are refused."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MAX_MERGED:
            raise yaml.YAMLError("too many merged keys")


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0] not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)


def _check_depth(text: str) -> None:
    """Refuses what is nested so deeply that the C loader would overflow its stack; events don't nest."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise yaml.YAMLError("nested too deeply")


def _check_size(node: object, sizes: dict[int, int]) -> int:
    """The number of values in a document with every alias written out; refuses too many, and a cycle of aliases."""
    members = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if id(node) not in sizes:
        sizes[id(node)] = _MAX_VALUES  # until it is known: what contains itself has no end
        sizes[id(node)] = 1 + sum(_check_size(member, sizes) for member in members)
    if sizes[id(node)] > _MAX_VALUES:
        raise yaml.YAMLError("its aliases make it too large")
    return sizes[id(node)]
