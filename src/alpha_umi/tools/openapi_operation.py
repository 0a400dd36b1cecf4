"""Reads the operations of an OpenAPI document: what a call needs, as one flat object of arguments.

An argument has the name of its parameter, or of the property of a JSON or form body. Where two have one name, the
later one (in the order path, query, header, cookie, body) is called ``<name>_<place>``: ``id`` and ``id_body``. A body
that is no object of named properties is one argument, ``body``. A body with a required property is always sent.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from alpha_umi.tools.http import parse_url
from alpha_umi.tools.openapi_document import Document, Unusable
from alpha_umi.tools.openapi_schema import Schema, SchemaReader

METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
Place = Literal["path", "query", "header", "cookie", "body"]
_PLACES: tuple[Place, ...] = ("path", "query", "header", "cookie", "body")
_STYLES = {
    "path": ("simple",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
# a body of these keywords, closed, is given property by property
_NAMED = frozenset({"type", "properties", "required", "description", "additionalProperties"})
# OpenAPI says to ignore the first three; the others belong to the connection and are never a model's to write
_NOT_ARGUMENTS = frozenset(
    {
        *("accept", "content-type", "authorization"),
        *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "cookie"),
        *("accept-encoding", "proxy-authorization", "proxy-connection", "keep-alive"),
    }
)


@dataclass(frozen=True)
class Argument:
    """One argument of a call.

    Attributes:
        name: In the tool's schema.
        wire: In the request; empty for a whole body.
        place: Where it goes.
        style: How a list or an object is written, as OpenAPI names it.
        explode: Whether each item of a list is written by itself.
        as_json: Whether the value is written as JSON text.
    """

    name: str
    wire: str
    place: Place
    style: str = ""
    explode: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation that can become a tool.

    Attributes:
        id: Its ``operationId``, or its method and path as one word.
        description: What it does, in the document's words.
        method: In capitals.
        path: With parameters in braces; begins with a slash.
        base: The server's URL, without a slash at its end.
        schema: JSON Schema of all arguments.
        arguments: Where each argument goes.
        media_type: Of the body, or None if there is none.
        sends_body: Whether a body is sent even if no argument is for it.
        tags: The groups it belongs to.
        security: Alternatives, each a set of security schemes; None if nothing is said.
    """

    id: str
    description: str
    method: str
    path: str
    base: str
    schema: Schema
    arguments: tuple[Argument, ...]
    media_type: str | None
    sends_body: bool
    tags: tuple[str, ...]
    security: tuple[frozenset[str], ...] | None


class _Parameter(BaseModel):
    name: str = Field(min_length=1)
    place: Literal["path", "query", "header", "cookie"] = Field(alias="in")
    description: str | None = None
    required: bool = False
    schema_: Any = Field(None, alias="schema")
    content: dict[str, Any] | None = None
    style: str | None = None
    explode: bool | None = None


class _Body(BaseModel):
    description: str | None = None
    required: bool = False
    content: dict[str, Any]


class _Server(BaseModel):
    url: str
    variables: dict[str, dict[str, Any]] = {}


class _Operation(BaseModel):
    operation_id: str | None = Field(None, alias="operationId")
    summary: str | None = None
    description: str | None = None
    tags: list[str] = []
    parameters: list[Any] = []
    body: Any = Field(None, alias="requestBody")
    servers: list[Any] = []
    security: list[dict[str, Any]] | None = None


class _Root(BaseModel):
    security: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class _Field:
    argument: Argument
    schema: Schema
    required: bool


def read_operations(
    document: Document, base_url: str | None = None, supplied: Container[tuple[str, str]] = ()
) -> Iterator[tuple[str, Operation | Unusable]]:
    """Yields every operation's name in the document with the operation, or with why it can't become a tool.

    Args:
        document: Where the operations are.
        base_url: Of the server, or None to take the document's.
        supplied: Place and name, in lower case, of parameters that are no arguments, as the program fills them in.
    """
    for path, item in document.objects("paths"):
        try:
            members = document.resolved(item)
        except Unusable as reason:
            yield path, reason
            continue
        for method in METHODS:
            if method in members:
                yield _read_or_reason(document, path, method, members, base_url, supplied)


def _read_or_reason(
    document: Document,
    path: str,
    method: str,
    item: Mapping[str, Any],
    base_url: str | None,
    supplied: Container[tuple[str, str]],
) -> tuple[str, Operation | Unusable]:
    key = f"{method.upper()} {path}"
    try:
        read = _Operation.model_validate(item[method])
        key = read.operation_id or key
        parameters = [*_listed(item.get("parameters")), *read.parameters]
        reader = SchemaReader(document)
        fields = _parameter_fields(document, reader, path, parameters, supplied)
        base = base_url or _server(document, read.servers or _listed(item.get("servers")))
        return key, _operation(document, reader, path, method, read, fields, base)
    except Unusable as reason:
        return key, reason
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return key, Unusable(f"{where}: {first['msg']}")


def _operation(
    document: Document, reader: SchemaReader, path: str, method: str, read: _Operation, fields: list[_Field], base: str
) -> Operation:
    if not path.startswith("/"):
        raise Unusable("its path does not begin with a slash")
    body = None if read.body is None else _Body.model_validate(document.resolved(read.body))
    media_type, in_body = (None, []) if body is None else _body_fields(document, reader, body)
    fields = _with_unique_names([*fields, *in_body])
    security = read.security if read.security is not None else _Root.model_validate(document.root).security
    return Operation(
        id=read.operation_id or method + re.sub(r"[^a-zA-Z0-9-]+", "_", path),
        description=_description(read),
        method=method.upper(),
        path=path,
        base=base,
        schema=_flat_schema(fields, reader.definitions()),
        arguments=tuple(field.argument for field in fields),
        media_type=media_type,
        sends_body=body is not None and body.required,
        tags=tuple(read.tags),
        security=None if security is None else tuple(frozenset(one) for one in security),
    )


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _description(read: _Operation) -> str:
    parts = dict.fromkeys(part.strip() for part in (read.summary, read.description) if part and part.strip())
    text = "\n".join(parts)
    return text if len(text) <= 1000 else text[:1000].rstrip() + "..."


def _server(document: Document, servers: list[Any]) -> str:
    servers = servers or _listed(document.root.get("servers")) or [{"url": "/"}]
    server = _Server.model_validate(servers[0])
    address = server.url or "/"
    for name, variable in server.variables.items():
        address = address.replace(f"{{{name}}}", str(variable.get("default", "")))
    try:
        base = parse_url(document.url).join(address) if document.url else address
        return str(parse_url(str(base)).copy_with(query=None, fragment=None)).rstrip("/")
    except ValueError as error:
        raise Unusable(f"its server's URL can't be used without a base URL from you: {error}") from error


# ---- arguments ----------------------------------------------------------------------------------------------------


def _parameter_fields(
    document: Document,
    reader: SchemaReader,
    path: str,
    nodes: Iterable[object],
    supplied: Container[tuple[str, str]],
) -> list[_Field]:
    """The fields of all parameters; of two with one name and place the later counts."""
    parameters: dict[tuple[str, str], _Parameter] = {}
    for node in nodes:
        parameter = _Parameter.model_validate(document.resolved(node))
        parameters[parameter.place, parameter.name] = parameter
    in_path = re.findall(r"{([^{}]+)}", path)
    for name in in_path:
        if ("path", name) not in parameters:  # left out by careless authors
            parameters["path", name] = _Parameter.model_validate({"name": name, "in": "path"})
    return [
        _parameter_field(reader, parameter)
        for parameter in parameters.values()
        if (parameter.place, parameter.name.lower()) not in supplied
        and not (parameter.place == "header" and parameter.name.lower() in _NOT_ARGUMENTS)
        and not (parameter.place == "path" and parameter.name not in in_path)
    ]


def _parameter_field(reader: SchemaReader, parameter: _Parameter) -> _Field:
    style = parameter.style or _STYLES[parameter.place][0]
    if style not in _STYLES[parameter.place]:
        raise Unusable(f"the parameter {parameter.name!r} has the style {style!r}, which is not supported here")
    kind, media = next(iter((parameter.content or {}).items()), ("", None))
    given = media.get("schema") if isinstance(media, dict) else parameter.schema_
    schema = reader.read({"type": "string"} if given is None else given)
    if parameter.description:
        schema = {**schema, "description": parameter.description.strip()}
    explode = style in ("form", "deepObject") if parameter.explode is None else parameter.explode
    argument = Argument(parameter.name, parameter.name, parameter.place, style, explode, "json" in kind)
    return _Field(argument, schema, parameter.required or parameter.place == "path")


def _body_fields(document: Document, reader: SchemaReader, body: _Body) -> tuple[str | None, list[_Field]]:
    """The media type to send, and the fields that make up the body."""
    media_type = min(filter(_preference, body.content), key=_preference, default=None)
    if media_type is None:
        if body.required:
            raise Unusable(f"its body is of {', '.join(body.content) or 'no type'}; JSON, forms and text can be sent")
        return None, []
    schema = reader.read(document.resolved(body.content[media_type]).get("schema", True))
    sent = "application/json" if "*" in media_type else media_type
    named = schema.get("properties", {})
    if named and "" not in named and schema.keys() <= _NAMED and not schema.get("additionalProperties"):
        required = schema.get("required", [])
        return sent, [_Field(Argument(name, name, "body"), value, name in required) for name, value in named.items()]
    if body.description and "description" not in schema:
        schema = {**schema, "description": body.description.strip()}
    return sent, [_Field(Argument("body", "", "body"), schema, body.required)]


def _preference(media_type: str) -> int:
    """The place of a body's media type among those that can be sent, from 1; 0 if it can't be."""
    kind = media_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return 1
    kinds = ("*/*", "application/*", "application/x-www-form-urlencoded", "multipart/form-data")
    if kind in kinds:
        return kinds.index(kind) + 2
    return 9 if kind.startswith("text/") else 0


def _with_unique_names(fields: list[_Field]) -> list[_Field]:
    unique: dict[str, _Field] = {}
    for field in sorted(fields, key=lambda field: _PLACES.index(field.argument.place)):
        argument = field.argument
        names = (argument.name, f"{argument.name}_{argument.place}")
        numbered = (f"{names[1]}_{number}" for number in range(2, len(fields) + 2))
        name = next(name for name in (*names, *numbered) if name not in unique)
        unique[name] = replace(field, argument=replace(argument, name=name))
    return list(unique.values())


def _flat_schema(fields: Iterable[_Field], definitions: Schema) -> Schema:
    schema: Schema = {"type": "object", "properties": {field.argument.name: field.schema for field in fields}}
    if required := [field.argument.name for field in fields if field.required]:
        schema["required"] = required
    return {**schema, "$defs": definitions} if definitions else schema
