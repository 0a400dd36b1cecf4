"""Credentials for OpenAPI tools, from environment variables that the caller of `read_credentials` names.

Besides the security schemes of a document (API key in a header, the query or a cookie; HTTP bearer and basic, whose
variable holds ``user:password``; OAuth 2 and OpenID Connect, whose variable holds an access token) there are schemes
for documents that declare none: ``bearer``, ``basic``, ``header:NAME``, ``query:NAME`` and ``cookie:NAME``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from alpha_umi.errors import UserError
from alpha_umi.tools.openapi_document import Document, Unusable
from alpha_umi.tools.text import SHORTEST_SECRET

Place = Literal["header", "query", "cookie"]
_BEARER = ("oauth2", "openIdConnect")


@dataclass(frozen=True)
class Credential:
    """What proves to a server who calls.

    Attributes:
        scheme: The security scheme it is for.
        place: Where it goes.
        name: Of the header, the query parameter or the cookie.
        value: What is sent; a secret.
        secrets: Every text in which the secret may come back.
        declared: Whether the document knows the scheme.
    """

    scheme: str
    place: Place
    name: str
    value: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    declared: bool = True


def read_credentials(document: Document, auth: Mapping[str, str]) -> tuple[Credential, ...]:
    """The credentials for the schemes of ``auth``.

    Args:
        document: Declares the schemes.
        auth: Scheme to the name of the environment variable that holds its secret.

    Raises:
        UserError: There is no such scheme, it is of a kind that can't be used, or its variable is not set or unusable.
    """
    return tuple(_credential(document, scheme, _secret(scheme, variable)) for scheme, variable in auth.items())


def credentials_for(
    security: tuple[frozenset[str], ...] | None, credentials: tuple[Credential, ...]
) -> tuple[Credential, ...]:
    """The credentials that one operation is sent.

    These are all that the document doesn't declare, and of the declared ones those of the first alternative for which
    there is everything; where the document says nothing of security, all.
    """
    if security is None:
        return credentials
    have = {one.scheme for one in credentials if one.declared}
    needed: frozenset[str] = next((alternative for alternative in security if alternative <= have), frozenset())
    return tuple(one for one in credentials if not one.declared or one.scheme in needed)


def _secret(scheme: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"the environment variable {variable}, which is to hold the secret of {scheme!r}, is not set")
    if len(value) < SHORTEST_SECRET:
        raise UserError(f"the secret in the environment variable {variable} is too short to be kept out of texts")
    if not (value.isascii() and value.isprintable()):
        raise UserError(f"the environment variable {variable} holds characters that no header can; set it again")
    return value


def _credential(document: Document, scheme: str, secret: str) -> Credential:
    declared = dict(document.objects("components", "securitySchemes"))
    if scheme not in declared:
        return _undeclared(scheme, secret, sorted(declared))
    try:
        node = document.resolved(declared[scheme])
    except Unusable as reason:
        raise UserError(f"the security scheme {scheme!r} can't be used: {reason}") from reason
    kind, http = node.get("type"), str(node.get("scheme", "")).lower()
    if kind == "apiKey" and node.get("in") in ("header", "query", "cookie") and isinstance(node.get("name"), str):
        return Credential(scheme, node["in"], node["name"], secret, (secret,))
    if kind in _BEARER or (kind, http) == ("http", "bearer"):
        return _bearer(scheme, secret)
    if (kind, http) == ("http", "basic"):
        return _basic(scheme, secret)
    raise UserError(
        f"the security scheme {scheme!r} is of a kind that can't be used; "
        "API keys, HTTP bearer and basic, OAuth 2 and OpenID Connect tokens can"
    )


def _undeclared(scheme: str, secret: str, declared: list[str]) -> Credential:
    place, _, name = scheme.partition(":")
    if scheme == "bearer":
        return _bearer(scheme, secret, declared=False)
    if scheme == "basic":
        return _basic(scheme, secret, declared=False)
    if place in ("header", "query", "cookie") and name:
        return Credential(scheme, cast(Place, place), name, secret, (secret,), declared=False)
    schemes = ", ".join(declared) or "none"
    raise UserError(
        f"the document has no security scheme {scheme!r}; it declares {schemes}; "
        "bearer, basic, header:NAME, query:NAME and cookie:NAME can be given as well"
    )


def _bearer(scheme: str, secret: str, *, declared: bool = True) -> Credential:
    return Credential(scheme, "header", "Authorization", f"Bearer {secret}", (secret,), declared)


def _basic(scheme: str, secret: str, *, declared: bool = True) -> Credential:
    encoded = base64.b64encode(secret.encode()).decode()
    password = secret.partition(":")[2]
    return Credential(scheme, "header", "Authorization", f"Basic {encoded}", (secret, password, encoded), declared)
