"""What stands behind ``--tools``: a source, or with ``@FILE`` a list of sources with options of their own.

A list is YAML or JSON. An entry is what would stand behind ``--tools``, or an object that names an OpenAPI document as
its ``source`` and says what holds for this one alone::

    - my_tools.py
    - mcp:uvx some-server
    - source: https://api.example.com/openapi.json
      only: [listInvoices, GET /customers]      # tools to keep
      tag: [billing]                            # keeps the operations with one of these tags
      auth: {bearer: API_TOKEN}                 # security scheme: environment variable with its secret
      base_url: https://staging.example.com

For what an entry doesn't say, the options of the command line hold. Paths are relative to the current directory, as on
the command line; a list names no other list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.data.records import reason
from alpha_umi.errors import DataError, UserError


@dataclass(frozen=True)
class OpenApiOptions:
    """What holds for an OpenAPI document; see `openapi.open_openapi`.

    Attributes:
        only: Tools to keep; empty keeps all.
        tags: Keeps the operations with one of these tags; empty keeps all.
        base_url: Of the server; None takes the one that the document names.
        auth: ``SCHEME=VARIABLE``: which environment variable holds the secret of a security scheme.
    """

    only: Sequence[str] = ()
    tags: Sequence[str] = ()
    base_url: str | None = None
    auth: Sequence[str] = ()

    def variables(self) -> dict[str, str]:
        """Security scheme to environment variable.

        Raises:
            UserError: One of ``auth`` is no such pair.
        """
        pairs = {}
        for pair in self.auth:
            scheme, _, variable = pair.rpartition("=")
            if not scheme or not variable:
                raise UserError(f"--auth {pair!r}: give SCHEME=VARIABLE, the name of an environment variable")
            pairs[scheme] = variable
        return pairs


@dataclass(frozen=True)
class ListedSource:
    """One source to be opened.

    Attributes:
        spec: As given behind ``--tools``, or in a list.
        openapi: What holds for it, if it is an OpenAPI document.
        entry: Where some of that was said of this source alone: the list and the entry's number; otherwise empty.
    """

    spec: str
    openapi: OpenApiOptions
    entry: str = ""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    source: str
    only: list[str] | None = None
    tag: list[str] | None = None
    auth: dict[str, str] | None = None
    base_url: str | None = None

    def listed(self, defaults: OpenApiOptions, entry: str) -> ListedSource:
        """The source, with the defaults for what is not said here."""
        auth = defaults.auth if self.auth is None else [f"{scheme}={name}" for scheme, name in self.auth.items()]
        options = OpenApiOptions(
            defaults.only if self.only is None else self.only, defaults.tags if self.tag is None else self.tag,
            defaults.base_url if self.base_url is None else self.base_url, auth,
        )  # fmt: skip
        return ListedSource(self.source, options, entry if self.model_fields_set > {"source"} else "")


def listed_sources(specs: Sequence[str], defaults: OpenApiOptions) -> Iterator[ListedSource]:
    """The sources that are meant, those of a list in its place.

    Args:
        specs: What stands behind ``--tools``.
        defaults: The options of the command line.

    Raises:
        DataError: A list can't be read, or an entry is neither a source nor an object with known options.
    """
    for spec in specs:
        if spec.startswith("@"):
            yield from _entries(Path(spec[1:]), defaults)
        else:
            yield ListedSource(spec, defaults)


def _entries(path: Path, defaults: OpenApiOptions) -> Iterator[ListedSource]:
    entries = _read(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(path, "no list of tool sources; give a YAML or JSON list, as `- my_tools.py`")
    for number, entry in enumerate(entries, 1):
        try:
            listed = _listed(entry, defaults, f"{path}, entry {number}")
        except ValidationError as error:
            raise DataError(path, f"entry {number}: {reason(error)}") from error
        if listed.spec.startswith("@"):
            raise DataError(path, f"entry {number}: a list of tool sources can't name another; give its sources here")
        yield listed


def _listed(entry: Any, defaults: OpenApiOptions, where: str) -> ListedSource:
    if isinstance(entry, str):
        return ListedSource(entry, defaults)
    return _Entry.model_validate(entry).listed(defaults, where)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(path, f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(path, "not UTF-8") from error
    except RecursionError as error:
        raise DataError(path, "nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        line = None if mark is None else mark.line + 1
        raise DataError(path, f"neither YAML nor JSON: {problem.splitlines()[0][:200]}", line) from error
