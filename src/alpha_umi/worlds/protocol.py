"""StableToolBench's protocol: one POST a call, a JSON object with ``error`` and ``response`` back.

A call names its API by category, collection and API, which clients spell in several ways (``News, Media`` or
``News_Media``, ``TheClique`` or ``theclique_for_Data``); `ApiName` is the one spelling behind them. The protocol has no
place for the kind of a failure, so that goes beside it, in the header `FAILURE_HEADER`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from alpha_umi.tools.toolbench import standard_name, unreserved_name
from alpha_umi.validation import not_finite

PATH = "/virtual"
FAILURE_HEADER = "Umi-Failure"
ANSWERED_BY_HEADER = "Umi-Answered-By"
_NOT_IN_A_CATEGORY = re.compile(r"[^\w%&()'-]+|_+")


class Failure(StrEnum):
    """Why a call has no response."""

    API_ERROR = "api_error"
    """The API itself, as recorded or simulated, says that it failed."""
    INVALID_INPUT = "invalid_input"
    """``tool_input`` is no JSON object."""
    UNKNOWN_API = "unknown_api"
    """Nothing is recorded of this API, and there is no documentation of it."""
    NOT_RECORDED = "not_recorded"
    """The call is not recorded, and there is no simulator."""
    UNREADABLE = "simulator_unreadable"
    """The simulator wrote, as often as it was asked, something else than an API's reply."""
    REFUSED = "simulator_refused"
    """The simulator's provider would not answer this call: its content filter, or its context."""


class VirtualRequest(BaseModel):
    """The body of a call.

    Attributes:
        category: Of the collection, in any spelling.
        tool_name: The collection, in any spelling.
        api_name: The API, in any spelling.
        tool_input: The arguments, as an object or as its JSON; an empty text stands for none.
        strip: Taken and not used: replies are never shortened here.
        toolbench_key: Taken and not used; see the header of the same name.
    """

    model_config = ConfigDict(extra="ignore")

    category: str
    tool_name: str
    api_name: str
    tool_input: str | dict[str, Any] = ""
    strip: str = ""
    toolbench_key: str = ""

    def call(self) -> ApiCall | None:
        """The call that is meant; None if its input is no JSON object."""
        arguments = _arguments(self.tool_input)
        return None if arguments is None else ApiCall(
            ApiName.of(self.category, self.tool_name, self.api_name), arguments
        )  # fmt: skip


@dataclass(frozen=True)
class ApiName:
    """An API in the spelling that StableToolBench's cache has.

    Attributes:
        category: Such as ``News_Media``.
        collection: Such as ``theclique``.
        api: Such as ``songkick_artist``.
    """

    category: str
    collection: str
    api: str

    @classmethod
    def of(cls, category: str, collection: str, api: str) -> ApiName:
        """The one spelling of a name, however it is written; nothing in it can lead out of a folder."""
        category = _NOT_IN_A_CATEGORY.sub("_", category)
        collection = standard_name(collection.removesuffix(f"_for_{category}"))
        api = unreserved_name(standard_name(api)).removesuffix(f"_for_{collection}")
        return cls(category, collection, api)

    def __str__(self) -> str:
        return f"{self.category}/{self.collection}/{self.api}"


@dataclass(frozen=True)
class ApiCall:
    """An API and its arguments; in which order these stand makes no difference."""

    name: ApiName
    arguments: Mapping[str, Any]

    @property
    def canonical(self) -> str:
        """The arguments as JSON, their keys sorted at every depth."""
        return json.dumps(self.arguments, sort_keys=True)

    @property
    def key(self) -> str:
        """Equal for equal calls; the numbers 1 and 1.0 are two."""
        return hashlib.sha256(f"{self.name}\n{self.canonical}".encode()).hexdigest()


@dataclass(frozen=True)
class ApiReply:
    """What an API answers.

    Attributes:
        response: Any JSON value; an empty text if it failed.
        error: Empty, or what went wrong.
        failure: Its kind; None if there is a response.
    """

    response: Any = ""
    error: str = ""
    failure: Failure | None = None

    @classmethod
    def told(cls, error: str, response: Any) -> ApiReply:
        """A reply as the protocol has it: with an error that says anything, the API failed."""
        return cls(response, error, Failure.API_ERROR if error else None)

    @classmethod
    def failed(cls, failure: Failure, error: str) -> ApiReply:
        """No response."""
        return cls("", error, failure)

    def body(self) -> dict[str, Any]:
        """As the protocol has it."""
        return {"error": self.error, "response": self.response}


def _arguments(given: str | dict[str, Any]) -> dict[str, Any] | None:
    try:
        value = json.loads(given) if isinstance(given, str) and given.strip() else given or {}
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not_finite(value) is None else None
