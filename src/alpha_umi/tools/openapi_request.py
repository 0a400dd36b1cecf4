"""Builds the HTTP request of a call.

Every argument is written so that it stays in its place: a path argument can't leave its segment, a query argument
can't become another one, a header argument can't end its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode

import httpx2

from alpha_umi.errors import ToolError
from alpha_umi.tools.http import HttpRequest
from alpha_umi.tools.openapi_auth import Credential
from alpha_umi.tools.openapi_operation import Argument, Operation

_SEPARATORS = {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
_UNQUOTINGS = 5  # more often than any server undoes an encoding
Pair = tuple[str, str]


def build_request(operation: Operation, arguments: Mapping[str, Any], credentials: Iterable[Credential]) -> HttpRequest:
    """The request of a call whose arguments fit the operation's schema.

    An optional argument that is null is not sent, except in a JSON body.

    Raises:
        ToolError: ``invalid_arguments``: a value can't be sent in its place.
    """
    given = [(argument, arguments[argument.name]) for argument in operation.arguments if argument.name in arguments]
    in_url = [(argument, value) for argument, value in given if value is not None and argument.place != "body"]
    path = {argument.wire: _segment(argument, value) for argument, value in in_url if argument.place == "path"}
    query = [pair for argument, value in in_url if argument.place == "query" for pair in _query(argument, value)]
    headers = {argument.wire: _header(argument, value) for argument, value in in_url if argument.place == "header"}
    cookies = [pair for argument, value in in_url if argument.place == "cookie" for pair in _query(argument, value)]
    for credential in credentials:
        if credential.place == "header":
            headers[credential.name] = credential.value
        else:
            (query if credential.place == "query" else cookies).append((credential.name, credential.value))
    if cookies:
        headers["Cookie"] = "; ".join(f"{_cookie(name)}={_cookie(value)}" for name, value in cookies)
    body, content_type = _body(operation, [(argument, value) for argument, value in given if argument.place == "body"])
    if content_type is not None:
        headers["Content-Type"] = content_type
    return HttpRequest(operation.method, _url(operation, path, query), headers, body)


def _url(operation: Operation, path: Mapping[str, str], query: list[Pair]) -> httpx2.URL:
    address = quote(operation.path, safe="/{}:@!$&'()*+,;=-._~%")
    for name, segment in path.items():
        address = address.replace("{" + quote(name, safe="{}:@!$&'()*+,;=-._~%") + "}", segment)
    if "{" in address:
        raise ToolError("invalid_arguments", "an argument that is part of the path is missing")
    encoded = f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""
    try:
        return httpx2.URL(operation.base + address + encoded)
    except httpx2.InvalidURL as error:
        raise ToolError("invalid_arguments", "the arguments are too long for a URL") from error


def _segment(argument: Argument, value: Any) -> str:
    """A path argument, percent-encoded; what a server could take for a way up the path is refused."""
    text = _joined(argument, value)
    decoded = text
    for _ in range(_UNQUOTINGS):
        decoded = unquote(decoded)
    parts = decoded.replace("\\", "/").split("/")
    if not text or "." in parts or ".." in parts:
        raise ToolError("invalid_arguments", f"{argument.name}: empty values, '.' and '..' can't be part of a path")
    return quote(text, safe="")


def _header(argument: Argument, value: Any) -> str:
    text = _joined(argument, value)
    if not (text.isascii() and text.isprintable()):
        raise ToolError("invalid_arguments", f"{argument.name}: a header takes printable ASCII characters only")
    return text


def _cookie(text: str) -> str:
    return quote(text, safe="!#$%&'()*+-./:<=>?@[]^_`{|}~")


def _joined(argument: Argument, value: Any) -> str:
    """OpenAPI's style ``simple``."""
    if argument.as_json or not isinstance(value, list | dict):
        return _scalar(value, argument)
    if isinstance(value, list):
        return ",".join(_scalar(item) for item in value)
    between = "=" if argument.explode else ","
    return ",".join(f"{_scalar(key)}{between}{_scalar(item)}" for key, item in value.items())


def _query(argument: Argument, value: Any) -> list[Pair]:
    """The name-value pairs of a query or form argument."""
    if argument.as_json or not isinstance(value, list | dict):
        return [(argument.wire, _scalar(value, argument))]
    if isinstance(value, dict):
        if argument.style == "deepObject":
            return [(f"{argument.wire}[{_scalar(key)}]", _scalar(item)) for key, item in value.items()]
        if argument.explode:
            return [(_scalar(key), _scalar(item)) for key, item in value.items()]
        value = [part for key, item in value.items() for part in (key, item)]
    elif argument.explode:
        return [(argument.wire, _scalar(item)) for item in value]
    return [(argument.wire, _SEPARATORS.get(argument.style, ",").join(_scalar(item) for item in value))]


def _scalar(value: Any, argument: Argument | None = None) -> str:
    """A value as text: strings as they are unless they have to be JSON, everything else as JSON."""
    if isinstance(value, str) and not (argument is not None and argument.as_json):
        return _encodable(value)
    return _encodable(json.dumps(value, ensure_ascii=False))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _body(operation: Operation, given: list[tuple[Argument, Any]]) -> tuple[bytes | None, str | None]:
    """The body and its content type."""
    kind = operation.media_type
    if kind is None or not (given or operation.sends_body):
        return None, None
    whole = [value for argument, value in given if not argument.wire]
    value = whole[0] if whole else {argument.wire: value for argument, value in given}
    if kind.startswith("text/"):
        return _scalar(value).encode(), f"{kind.partition(';')[0]}; charset=utf-8"
    if kind.startswith("application/x-www-form-urlencoded"):
        return urlencode(_form(value)).encode(), "application/x-www-form-urlencoded"
    if kind.startswith("multipart/"):
        form = httpx2.Request("POST", "http://form", files=[(name, (None, text)) for name, text in _form(value)])
        return form.read(), form.headers.get("Content-Type")
    return json.dumps(value).encode(), kind


def _form(value: Any) -> list[Pair]:
    if not isinstance(value, dict):
        raise ToolError("invalid_arguments", "body: a form is an object")
    fields = ((Argument(name, _scalar(name), "body", "form", explode=True), item) for name, item in value.items())
    return [pair for argument, item in fields if item is not None for pair in _form_pairs(argument, item)]


def _form_pairs(argument: Argument, item: Any) -> list[Pair]:
    """The pairs of one field; an object in a form is JSON."""
    return [(argument.wire, _scalar(item))] if isinstance(item, dict) else _query(argument, item)
