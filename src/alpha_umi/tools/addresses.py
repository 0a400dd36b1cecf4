"""Which network addresses a call may reach, and the transport that reaches no other.

A host that the user named may be anywhere. Any other host, which only a redirect, a document or an argument leads to,
is resolved once, refused unless every address it has is public, and connected to at the address that was checked: a
name that resolves differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, cast

import httpcore2
import httpx2

from alpha_umi.errors import ToolError

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

_PUBLIC_V6 = ip_network("2000::/3")
# what `ipaddress` takes for public in some of its versions: protocol assignments (Oracle's metadata address among
# them), 6to4 relays, Azure's metadata address; then IPv6 assignments with Teredo, documentation and 6to4
_SPECIAL = tuple(
    ip_network(network)
    for network in (
        *("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Whether an IP address is a public unicast address, also by the IPv4 address that it may embed.

    Private, loopback, link-local, multicast, reserved, unspecified and metadata addresses are not; nor are deprecated
    IPv6 tunnels (6to4, Teredo, IPv4-compatible), wherever they lead to.
    """
    parsed = ip_address(address)
    if any(parsed in network for network in _SPECIAL):
        return False
    if isinstance(parsed, IPv4Address):
        return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
    embedded = _embedded(parsed)
    if parsed.ipv4_mapped or parsed in _NAT64:
        return embedded is not None and is_public(str(embedded))
    return parsed in _PUBLIC_V6 and (embedded is None or is_public(str(embedded)))


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address in an IPv4-mapped, NAT64 or ISATAP address."""
    bits = int(address)
    if address.ipv4_mapped or address in _NAT64 or (bits >> 32) & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(bits & 0xFFFFFFFF)
    return None


async def system_resolver(host: str, port: int) -> list[str]:
    """All addresses of a host; knows IPv4 in every notation that the operating system does (``0x7f.1``, ``127.1``)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class AddressPolicy:
    """Decides where a connection may go.

    Attributes:
        trusted: Host and port of what the user named; these may be in a private network.
        resolve: Asked once for each connection.
    """

    trusted: frozenset[tuple[str, int]]
    resolve: Resolver = system_resolver

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses to connect to, in order.

        Raises:
            ToolError: ``connection`` if the host has no address; ``refused_address`` if one of them is not public.
        """
        try:
            found = await self.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ToolError("connection", f"there is no host {host!r}") from error
        if (host.lower(), port) not in self.trusted and not all(is_public(address) for address in found):
            raise ToolError(
                "refused_address",
                f"{host}:{port} is not a public address; only hosts that the user named may be in a private network",
            )
        return found


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to the addresses that the policy allows, and to nothing else."""

    def __init__(self, policy: AddressPolicy, inner: httpcore2.AsyncNetworkBackend) -> None:
        self._policy, self._inner = policy, inner

    async def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in await self._policy.addresses(host, port):
            try:
                return await self._inner.connect_tcp(address, port, *args, **kwargs)
            except httpcore2.ConnectError as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class CheckedTransport(httpx2.AsyncBaseTransport):
    """An HTTP transport whose every connection is checked first.

    Connections are pooled by host name, for which the address (and with TLS the certificate) was checked. Settings of
    the environment for proxies are not followed: behind a proxy no address could be checked.

    Args:
        policy: Where a connection may go.
        network: Makes the connections, to addresses that were already checked.

    Raises:
        ToolError: `handle_async_request` raises what the policy does; broken connections raise httpcore2's exceptions.
    """

    def __init__(self, policy: AddressPolicy, network: httpcore2.AsyncNetworkBackend | None = None) -> None:
        checked = _CheckedNetwork(policy, network or cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend()))
        self._pool = httpcore2.AsyncConnectionPool(network_backend=checked, keepalive_expiry=5)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request; the reply's body is read from its stream."""
        url = request.url
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        response = await self._pool.handle_async_request(
            httpcore2.Request(request.method, target, headers=request.headers.raw, content=request.stream)
        )
        return httpx2.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._response.aclose()
