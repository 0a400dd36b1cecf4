"""What a server takes on, and what of one request it reads."""

from __future__ import annotations

from dataclasses import dataclass

from alpha_umi.errors import UserError


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of a server; whatever is over them is refused with a reason, never cut.

    Attributes:
        concurrency: Answers that are worked on at one time; each of a request's ``n`` counts.
        queue: Answers that may wait beyond these.
        body_bytes: A request's body.
        messages: Of a request.
        tools: Of a request.
        schema_characters: A tool's schema, or that of the answer, as JSON,
        schemas_characters: and all tools' schemas together.
        schema_depth: How deep one may be nested.
        choices: ``n`` of a request.
        seconds: One answer may take, from when it is begun.
        remembered: Conversations whose exact tokens are kept,
        remembered_tokens: and tokens of all of them together.
        retry_after: Seconds after which a client that was refused may try again.
    """

    concurrency: int = 32
    queue: int = 128
    body_bytes: int = 1 << 20
    messages: int = 2048
    tools: int = 128
    schema_characters: int = 1 << 16
    schemas_characters: int = 1 << 19
    schema_depth: int = 32
    choices: int = 8
    seconds: float = 300.0
    remembered: int = 1024
    remembered_tokens: int = 1 << 19
    retry_after: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0 and not (name in ("queue", "remembered", "remembered_tokens") and value == 0):
                raise UserError(f"the server's limit {name} is {value}; it must be above 0")
