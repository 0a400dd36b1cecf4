"""Tools behind a server that speaks StableToolBench's protocol: ours, StableToolBench's, or another.

What an API did wrong is an observation. What the server or the network did wrong is not: after the retries it ends the
run, so that no figure has a server's failures in it; what is finished is on disk, and the same command goes on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.http import BUSY_STATUSES, parse_url, retry_after_seconds, seconds_before_retry
from alpha_umi.trajectory import Tool
from alpha_umi.worlds.protocol import FAILURE_HEADER, PATH, ApiName, Failure

_KIND = re.compile(r"[a-z_]{1,40}")
_AGAIN = BUSY_STATUSES | {500}
_TIMEOUT, _RETRIES = 300.0, 5


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    error: str = ""
    response: Any = ""


class WorldClient:
    """Makes calls at a server. Used in one event loop until it is closed; the environment's proxies are not used.

    Args:
        url: Of the server, with or without ``/virtual`` behind it.
        key: What the server wants, if anything; sent as ``Authorization`` and as ``toolbench_key``.
        timeout: Seconds the server may take, which may have to ask a model.
        retries: Attempts after the first, of what the server or the network did wrong.
        sleep: Waits between attempts.

    Raises:
        UserError: It is no URL.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = _TIMEOUT,
        retries: int = _RETRIES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        try:
            parsed = parse_url(url)
        except ValueError as error:
            raise UserError(f"--server: {error}; give one like http://127.0.0.1:8080") from error
        self._url = parsed if parsed.path not in ("", "/") else parsed.copy_with(path=PATH)
        self._key, self._retries, self._sleep = key or "", retries, sleep
        self._timeout = timeout
        self._client: httpx2.AsyncClient | None = None

    async def call(self, api: ApiName, arguments: Mapping[str, Any]) -> str:
        """What an agent reads of a reply: the protocol's object, as ToolBench shows it.

        Raises:
            ToolError: The API failed.
            UserError: The server did, after the retries.
        """
        said = await self._post({
            "category": api.category, "tool_name": api.collection, "api_name": api.api,
            "tool_input": json.dumps(arguments), "strip": "truncate", "toolbench_key": self._key,
        })  # fmt: skip
        try:
            body = _Body.model_validate_json(said.content)
        except ValidationError as error:
            raise UserError(
                f"{self._url}: the answer has no error and response; does it speak the protocol?"
            ) from error
        if body.error:
            kind = said.headers.get(FAILURE_HEADER, "")
            raise ToolError(kind if _KIND.fullmatch(kind) else Failure.API_ERROR.value, body.error)
        return json.dumps({"error": "", "response": body.response}, ensure_ascii=False)

    async def aclose(self) -> None:
        """Closes the connections; a call after that, perhaps in another event loop, opens new ones."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            headers = {"toolbench_key": self._key, "Authorization": f"Bearer {self._key}"} if self._key else {}
            limits = httpx2.Limits(max_connections=None)
            self._client = httpx2.AsyncClient(timeout=self._timeout, headers=headers, limits=limits, trust_env=False)
        return self._client

    async def _post(self, body: Mapping[str, Any]) -> httpx2.Response:
        client, wrong = self._opened(), ""
        for attempt in range(self._retries + 1):
            wait = seconds_before_retry(attempt)
            try:
                said = await client.post(self._url, json=body)
                if said.status_code == 200:
                    return said
                wrong = f"status {said.status_code}"
                wait = seconds_before_retry(attempt, retry_after_seconds(said.headers.get("retry-after", "")))
                if said.status_code not in _AGAIN:
                    raise UserError(f"{self._url}: {wrong}; check --server and --server-key-env")
            except httpx2.TransportError as error:
                wrong = f"no answer ({type(error).__name__})"
            if attempt < self._retries:
                await self._sleep(wait)
        raise UserError(
            f"{self._url}: {wrong}, in {self._retries + 1} attempts; see to the server and give the same command again"
        )


@dataclass(frozen=True)
class VirtualSource:
    """The APIs of a query as tools.

    Attributes:
        tools: What the agent is shown.
        apis: The API behind each tool, by its name.
        server: Makes the calls; shared, and closed by whoever made it.
    """

    tools: tuple[Tool, ...]
    apis: Mapping[str, ApiName]
    server: WorldClient

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Calls the API behind a tool."""
        return await self.server.call(self.apis[name], arguments)
