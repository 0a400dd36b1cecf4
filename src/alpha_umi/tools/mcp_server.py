"""What stands behind ``--tools mcp:``: which MCP server is meant, and what it is given of the environment.

    mcp:uvx some-server --flag                          a command line, spoken to over its standard streams
    mcp:LEVEL=debug TOKEN=$GITHUB_TOKEN uvx some-server     with settings: variables of its environment
    mcp+https://host/mcp    mcp:https://host/mcp        a URL, spoken to over streamable HTTP
    mcp:Authorization="Bearer $API_TOKEN" https://host/mcp  with settings: headers of every request

``$NAME`` in a setting is a variable of the program's own environment. A command sees no other of its variables than
the few that are nobody's secret (`INHERITED`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Template

from alpha_umi.errors import UserError
from alpha_umi.tools.http import parse_url
from alpha_umi.tools.text import SHORTEST_SECRET, is_secret_name

INHERITED = (
    *("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV"),
    *("APPDATA", "LOCALAPPDATA", "PATHEXT", "PROGRAMFILES", "SYSTEMROOT", "TEMP", "USERNAME", "USERPROFILE"),
)
"""Variables that a command is given without being asked; a shell function in one of them is not passed on."""
MESSAGE_BYTES = 16 * 2**20
"""Longest message of a server; images in it are base64."""
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class StdioServer:
    """A server to be started. ``environment`` and ``secrets`` are not part of the representation.

    Attributes:
        command: Program and arguments.
        environment: All variables that it sees.
        secrets: Values that must not be shown.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return shlex.join(self.command)


@dataclass(frozen=True)
class HttpServer:
    """A server that runs. ``url`` (its query may be a secret), ``headers`` and ``secrets`` are not shown.

    Attributes:
        url: Where it listens.
        headers: Sent with every request.
        secrets: Values that must not be shown.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.url.partition("?")[0]


def read_server(spec: str, environment: Mapping[str, str] | None = None) -> StdioServer | HttpServer:
    """The server that a specification means.

    Args:
        spec: As given behind ``--tools``.
        environment: Where ``$NAME`` is looked up; None takes the process's.

    Raises:
        UserError: It names no server, a variable that is not set, or a URL that can't be used. What was given in
            settings is not repeated.
    """
    known = os.environ if environment is None else environment
    text = spec.removeprefix("mcp+") if spec.startswith("mcp+") else spec.partition(":")[2]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--tools mcp:...: the command line can't be read ({error}); check its quotes") from error
    count = next((number for number, word in enumerate(words) if not _SETTING.fullmatch(word)), len(words))
    rest = words[count:]
    if not rest:
        raise UserError("--tools mcp:...: name a server, as in 'mcp:uvx some-server' or 'mcp+https://host/mcp'")
    over_http = rest[0].lower().startswith(("http://", "https://"))
    settings, secrets = _settings(words[:count], known, over_http)
    if over_http:
        return _http(rest, settings, secrets)
    inherited = {name: known[name] for name in INHERITED if name in known and not known[name].startswith("()")}
    return StdioServer(tuple(rest), inherited | settings, secrets)


def _http(words: Sequence[str], headers: Mapping[str, str], secrets: tuple[str, ...]) -> HttpServer:
    url = words[0]
    if len(words) > 1:
        raise UserError(f"--tools mcp:...: nothing may follow a server's URL, but {words[1]!r} does")
    try:
        parsed = parse_url(url)
    except ValueError as error:
        raise UserError(f"--tools mcp:{url.partition('?')[0]}: the URL can't be used: {error}") from error
    return HttpServer(str(parsed.copy_with(fragment=None)), headers, secrets)


def _settings(
    words: Sequence[str], known: Mapping[str, str], all_secret: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The settings with their variables filled in, and the values among them that must not be shown."""
    settings: dict[str, str] = {}
    secrets: list[str] = []
    for word in words:
        name, _, text = word.partition("=")
        used = [braced or bare for braced, bare in _VARIABLE.findall(text)]
        missing = [variable for variable in used if not known.get(variable, "").strip()]
        if missing:
            raise UserError(f"the environment variable {missing[0]}, which {name} of an MCP server needs, is not set")
        settings[name] = _checked(name, Template(text).safe_substitute(known))
        secrets += [known[variable].strip() for variable in used if all_secret or is_secret_name(variable)]
        secrets += [settings[name]] if all_secret or is_secret_name(name) else []
    return settings, tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)


def _checked(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise UserError(f"the value of {name} for an MCP server holds characters other than printable ASCII")
    return value
