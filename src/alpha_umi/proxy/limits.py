"""What the proxy keeps, and how long it waits. No bound holds for what it passes on, only for what it records."""

from __future__ import annotations

from dataclasses import dataclass

from alpha_umi.errors import UserError


@dataclass(frozen=True)
class ProxyLimits:
    """Bounds of a proxy.

    Attributes:
        body_bytes: Of a request or a response, packed or unpacked; what has a larger one is passed on, not recorded.
        memory_bytes: Of all bodies that are held at one time, until they are written.
        file_bytes: Size from which records go on in a new file.
        disk_bytes: Of all record files of the folder; when it is reached, nothing more is recorded.
        connect_seconds: Until there is a connection to the upstream.
        silence_seconds: Between two reads of the upstream, or two writes to it.
        grace_seconds: That open responses have when the proxy is stopped.
    """

    body_bytes: int = 4 << 20
    memory_bytes: int = 256 << 20
    file_bytes: int = 64 << 20
    disk_bytes: int = 8 << 30
    connect_seconds: float = 10.0
    silence_seconds: float = 600.0
    grace_seconds: int = 30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"the proxy's limit {name} is {value}; it must be above 0")
