"""The operations of an OpenAPI document as tools.

Documents of OpenAPI 3.0 and 3.1, in JSON or YAML, from a file or a URL. Path, query, header and cookie parameters and
JSON, form or text bodies become one flat object of arguments (`openapi_operation`). References out of the document are
never followed: an operation that needs one is left out, with the reason. Calls go through `http.HttpClient`: only the
hosts that the user named (the URL of the document, the base URL, the servers in a file) may be in a private network.

Not supported: callbacks, webhooks, path parameters of style ``label`` or ``matrix``, uploads of binary files.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.addresses import Resolver, system_resolver
from alpha_umi.tools.http import HttpClient, HttpLimits, HttpRequest, parse_url
from alpha_umi.tools.names import legal_name, unique_name
from alpha_umi.tools.openapi_auth import Credential, credentials_for, read_credentials
from alpha_umi.tools.openapi_document import Document, Unusable, parse_document
from alpha_umi.tools.openapi_operation import Operation, read_operations
from alpha_umi.tools.openapi_request import build_request
from alpha_umi.tools.openapi_schema import sound
from alpha_umi.tools.text import masked
from alpha_umi.trajectory import Tool
from alpha_umi.validation import not_finite

DOCUMENT_BYTES = 20 * 2**20
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OpenApiSource:
    """The tools of one document; from `open_openapi`. To be used in one event loop.

    Attributes:
        tools: The tools, in the document's order.
        writes: Names of the tools that may change something: all whose method is not GET, HEAD or OPTIONS.
        left_out: Operations that can't become tools, with the reason; nothing where the user named those to keep.
    """

    def __init__(
        self,
        operations: Sequence[tuple[Tool, Operation]],
        left_out: Mapping[str, str],
        credentials: tuple[Credential, ...],
        client: HttpClient,
    ) -> None:
        self.tools = tuple(tool for tool, _ in operations)
        self.writes = frozenset(tool.name for tool, operation in operations if operation.method not in _READING)
        self.left_out = dict(left_out)
        self._operations = {tool.name: operation for tool, operation in operations}
        self._credentials = credentials
        self._client = client

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls an operation; returns the reply's body, or its status as JSON if it has none.

        Raises:
            ToolError: Of the kinds in `http`, or ``invalid_arguments`` for what can't be sent.
        """
        operation = self._operations[name]
        try:
            request = build_request(operation, arguments, credentials_for(operation.security, self._credentials))
        except RecursionError:
            raise ToolError("invalid_arguments", "the arguments are nested too deeply") from None
        reply = await self._client.send(request)
        return reply.text or json.dumps({"status": reply.status})

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.aclose()


async def open_openapi(
    spec: str,
    *,
    only: Sequence[str] = (),
    tags: Sequence[str] = (),
    base_url: str | None = None,
    auth: Mapping[str, str] | None = None,
    limits: HttpLimits | None = None,
    resolve: Resolver = system_resolver,
) -> OpenApiSource:
    """Opens the tools of an OpenAPI document.

    Args:
        spec: A file, or an http or https URL.
        only: Names of tools, ``operationId``s or ``METHOD /path``s to keep; empty keeps all.
        tags: Keeps the operations with one of these tags; empty keeps all.
        base_url: Of the server; None takes the one that the document names.
        auth: Security scheme to the environment variable with its secret; see `openapi_auth`.
        limits: What one call may cost.
        resolve: Finds a host's addresses.

    Raises:
        UserError: The document can't be read or has no usable operation, a filter matches nothing or what can't be
            used, the base URL is no URL, or a secret is missing.
    """
    base = None if base_url is None else _checked_base(base_url)
    document = await _load(spec, resolve)
    credentials = read_credentials(document, auth or {})
    supplied = {(one.place, one.name.lower()) for one in credentials}
    operations, left_out = tools_of(read_operations(document, base, supplied))
    if not operations:
        reason = next(iter(left_out.items()), None)
        why = "it has none" if reason is None else f"of {len(left_out)}, the first is {reason[0]}: {reason[1]}"
        raise UserError(f"no operation of {_shown(spec)} can become a tool; {why}")
    trusted = {operation.base for _, operation in operations} if document.url is None else {document.url}
    client = HttpClient(
        trusted | ({base} if base else set()), limits=limits, hide=_hiding(credentials), resolve=resolve
    )
    kept = _filtered(operations, only, tags, left_out)
    return OpenApiSource(kept, {} if only else left_out, credentials, client)


def _checked_base(base_url: str) -> str:
    try:
        return str(parse_url(base_url).copy_with(query=None, fragment=None)).rstrip("/")
    except ValueError as error:
        raise UserError(f"the base URL {_shown(base_url)} can't be used: {error}") from error


def _shown(address: str) -> str:
    """A file or URL as it may be shown: without a user name, a password and a query, which may be secrets."""
    return re.sub(r"^(https?://)[^/?#]*@", r"\1", address).partition("?")[0] if "://" in address else address


async def _load(spec: str, resolve: Resolver) -> Document:
    if not spec.lower().startswith(("http://", "https://")):
        return parse_document(_file(spec), spec)
    try:
        url = str(parse_url(spec))
        client = HttpClient([url], limits=HttpLimits(response_bytes=DOCUMENT_BYTES), resolve=resolve)
        try:
            reply = await client.send(HttpRequest("GET", parse_url(url), {}))
        finally:
            await client.aclose()
    except (ToolError, ValueError) as error:
        raise UserError(f"{_shown(spec)} can't be read: {error}; check the URL, and that its server runs") from error
    return parse_document(reply.text, _shown(spec), url)


def _file(spec: str) -> str:
    try:
        with Path(spec).open("rb") as file:
            data = file.read(DOCUMENT_BYTES + 1)
        if len(data) > DOCUMENT_BYTES:
            raise UserError(f"{spec} is larger than {DOCUMENT_BYTES} bytes, the limit for a document")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{spec} can't be read: {error.strerror}; give an OpenAPI document or its URL") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{spec} is not UTF-8; give an OpenAPI document in JSON or YAML") from error


def _hiding(credentials: Iterable[Credential]) -> Callable[[str], str]:
    secrets = [secret for credential in credentials for secret in credential.secrets]
    return functools.partial(masked, environment={f"SECRET_{number}": secret for number, secret in enumerate(secrets)})


# ---- names and filters --------------------------------------------------------------------------------------------


def tools_of(
    read: Iterable[tuple[str, Operation | Unusable]],
) -> tuple[list[tuple[Tool, Operation]], dict[str, str]]:
    """A tool for each operation, with legal and unique names; and why there is none for the others."""
    tools: dict[str, tuple[Tool, Operation]] = {}
    left_out: dict[str, str] = {}
    for key, operation in read:
        if isinstance(operation, Unusable):
            left_out[key] = str(operation)
            continue
        schema = sound(operation.schema)
        problem = not_finite(schema)
        if problem is not None:
            left_out[key] = f"its schema is no JSON: {problem}"
            continue
        name = unique_name(legal_name(operation.id, "operation"), tools)
        extra = {"openapi": {"method": operation.method, "path": operation.path}}
        tools[name] = (Tool.of(name, operation.description, schema, extra), operation)
    return list(tools.values()), left_out


def _filtered(
    operations: Sequence[tuple[Tool, Operation]], only: Sequence[str], tags: Sequence[str], left_out: Mapping[str, str]
) -> list[tuple[Tool, Operation]]:
    known = {tag for _, operation in operations for tag in operation.tags}
    names = [{tool.name, operation.id, f"{operation.method} {operation.path}"} for tool, operation in operations]
    unusable = next((one for one in only if one in left_out), None)
    if unusable is not None:
        raise UserError(f"{unusable} can't become a tool: {left_out[unusable]}")
    _check_known("tag", tags, known)
    _check_known("tool", only, set().union(*names))
    kept = [
        pair
        for pair, called in zip(operations, names, strict=True)
        if (not only or called & set(only)) and (not tags or set(pair[1].tags) & set(tags))
    ]
    if not kept:
        raise UserError("no operation has both one of the names and one of the tags; give one of the two")
    return kept


def _check_known(what: str, given: Sequence[str], known: Iterable[str]) -> None:
    for one in given:
        if one not in known:
            near = difflib.get_close_matches(one, known, n=1)
            rest = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
            raise UserError(f"the document has no {what} {one!r}; {rest}")
