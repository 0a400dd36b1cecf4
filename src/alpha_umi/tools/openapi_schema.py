"""OpenAPI schemas as plain JSON Schema (draft 2020-12).

References are written out in place, as a small model reads that best. A schema that contains itself, and whatever is
still referred to once a tool's schema has grown large, goes to the tool's ``$defs`` instead, so that no document can
make a schema endless. ``allOf`` of plain objects becomes one object. What only documents (titles, examples, XML) and
what clients never send (``readOnly`` properties) is left out, and so is what is no JSON Schema: documents have many a
``maximum: "50"``, and a looser schema is more use than no tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from alpha_umi.tools.openapi_document import Document, Unusable

Schema = dict[str, Any]

_INLINE_NODES = 500  # from here on, and below this depth, references become definitions
_INLINE_DEPTH = 16
_MAX_NODES = 10_000
_MAX_DEPTH = 60

_ONE = frozenset({"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"})
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAP = frozenset({"properties", "patternProperties", "dependentSchemas"})
_PLAIN = frozenset(
    {
        *("type", "enum", "const", "format", "pattern", "default", "description", "required", "dependentRequired"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"),
    }
)
_META = Draft202012Validator(
    Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
)  # with formats: a pattern that is no regular expression
_NOTES = frozenset({"description", "default"})
_OBJECT = frozenset({"type", "properties", "required"})


class SchemaReader:
    """Reads the schemas of one tool; what they share is in `definitions` once all are read.

    Args:
        document: Where the schemas and their references are.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._names: dict[str, str] = {}
        self._nodes = 0

    def read(self, schema: object) -> Schema:
        """A schema in plain JSON Schema; ``$ref`` in it leads to `definitions` only.

        Raises:
            Unusable: It is too large, too deep, or refers to what can't be followed.
        """
        return self._read(schema, frozenset(), 0)

    def definitions(self) -> Schema:
        """The ``$defs`` that the schemas read so far refer to.

        Raises:
            Unusable: As `read`.
        """
        definitions: Schema = {}
        while len(definitions) < len(self._names):
            for reference, name in list(self._names.items()):
                if name not in definitions:
                    target = self._document.look_up(reference)
                    definitions[name] = self._read(target, frozenset({reference}), 0)
        for name in definitions:
            _check_ends(name, definitions)
        return definitions

    def _read(self, node: object, within: frozenset[str], depth: int) -> Schema:
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise Unusable("its schema is too large or nested too deeply")
        if isinstance(node, bool):
            return {} if node else {"not": {}}
        if not isinstance(node, dict):  # not a schema: says nothing
            return {}
        if "$ref" not in node:
            return self._plain(node, within, depth)
        target = self._referred(node["$ref"], within, depth)
        beside = {key: value for key, value in node.items() if key != "$ref"}
        if not beside or self._document.is_3_0:  # 3.0 ignores what stands beside a reference
            return target
        return _together([target, self._plain(beside, within, depth)])

    def _referred(self, reference: object, within: frozenset[str], depth: int) -> Schema:
        target = self._document.look_up(reference)
        assert isinstance(reference, str)
        if reference in within or self._nodes > _INLINE_NODES or depth > _INLINE_DEPTH:
            return {"$ref": f"#/$defs/{self._name(reference)}"}
        return self._read(target, within | {reference}, depth + 1)

    def _name(self, reference: str) -> str:
        if reference not in self._names:
            stem = re.sub(r"\W+", "_", reference.rpartition("/")[2]) or "schema"
            taken = set(self._names.values())
            numbered = (f"{stem}_{number}" for number in range(2, len(taken) + 3))
            self._names[reference] = next(name for name in (stem, *numbered) if name not in taken)
        return self._names[reference]

    def _plain(self, node: Mapping[str, Any], within: frozenset[str], depth: int) -> Schema:
        def read(part: object) -> Schema:
            return self._read(part, within, depth + 1)

        result: Schema = {}
        hidden = self._read_only(node.get("properties"))
        for key, value in node.items():
            if key in _ONE:
                result[key] = value if isinstance(value, bool) else read(value)
            elif key in _LIST and isinstance(value, list):
                result[key] = [read(part) for part in value]
            elif key in _MAP and isinstance(value, dict):
                unsent = hidden if key == "properties" else ()
                result[key] = {str(name): read(part) for name, part in value.items() if name not in unsent}
            elif key in _PLAIN:
                result[key] = value
        names = result.pop("required", None)
        if isinstance(names, list):  # some documents say `required: true` of one property instead
            sent = [name for name in dict.fromkeys(map(str, names)) if name not in hidden]
            result |= {"required": sent} if sent else {}
        if result.get("properties") and result.get("additionalProperties") in (True, {}):
            del result["additionalProperties"]  # says what is so anyway
        return _nullable(_with_numeric_bounds(_flat(result)), node.get("nullable") is True and self._document.is_3_0)

    def _read_only(self, properties: object) -> list[object]:
        """Names of the properties that only the server sends."""
        members = properties.items() if isinstance(properties, dict) else ()
        return [
            name
            for name, part in members
            if isinstance(part, dict) and self._document.resolved(part).get("readOnly") is True
        ]


def sound(schema: Schema) -> Schema:
    """The schema as JSON can hold it, without the keywords whose values JSON Schema doesn't allow."""
    schema = json.loads(json.dumps(schema, default=str, skipkeys=True))
    while wrong := {tuple(error.absolute_path) for error in _META.iter_errors(schema)}:
        for *parents, last in sorted(wrong, key=lambda path: (len(path), str(path[-1]).zfill(9)), reverse=True):
            holder: Any = schema
            for part in parents:
                holder = holder[part]
            del holder[last]
    return schema


def _check_ends(name: str, definitions: Mapping[str, Any]) -> None:
    """Refuses a definition that is only a reference, to a reference, and so on round to itself."""
    seen: set[str] = set()
    while isinstance(node := definitions[name], dict) and node.keys() == {"$ref"}:
        seen.add(name)
        name = node["$ref"].removeprefix("#/$defs/")
        if name in seen:
            raise Unusable("its schema is defined by itself")


def _flat(schema: Schema) -> Schema:
    """The schema without its ``allOf``, where that can be merged."""
    parts = schema.pop("allOf", None)
    if not parts:
        return schema
    return _together([*parts, schema] if schema else parts)


def _together(parts: Sequence[Schema]) -> Schema:
    """One schema that asks for what all parts ask for; of notes the last counts."""
    notes = {key: value for part in parts for key, value in part.items() if key in _NOTES}
    asking = [asked for part in parts if (asked := {key: value for key, value in part.items() if key not in _NOTES})]
    if len(asking) <= 1:
        return {**(asking[0] if asking else {}), **notes}
    if all(asked.keys() <= _OBJECT and asked.get("type", "object") == "object" for asked in asking):
        return {**_one_object(asking), **notes}
    return {"allOf": asking, **notes}


def _one_object(parts: Sequence[Schema]) -> Schema:
    properties: Schema = {}
    required: list[str] = []
    for part in parts:
        for name, value in part.get("properties", {}).items():
            known = properties.get(name, value)
            properties[name] = value if known == value else _together([known, value])
        required += [name for name in part.get("required", ()) if name not in required]
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _with_numeric_bounds(schema: Schema) -> Schema:
    """The bounds of OpenAPI 3.0, where ``exclusiveMinimum: true`` says how ``minimum`` is meant."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(flag := schema.get(exclusive), bool):
            del schema[exclusive]
            if flag and bound in schema:
                schema[exclusive] = schema.pop(bound)
    return schema


def _nullable(schema: Schema, nullable: bool) -> Schema:
    """The schema, allowing null if ``nullable``."""
    if not nullable:
        return schema
    notes = {key: value for key, value in schema.items() if key in _NOTES}
    asking = {key: value for key, value in schema.items() if key not in _NOTES}
    if isinstance(kind := asking.get("type"), str) and "const" not in asking:
        enum = {"enum": [*asking["enum"], None]} if isinstance(asking.get("enum"), list) else {}
        return {**asking, "type": [kind, "null"], **enum, **notes}
    return {"anyOf": [asking, {"type": "null"}], **notes} if asking else schema
