"""What a chat completion request looks like: the parameters of OpenAI's API that have a meaning here.

A parameter that is unknown, or known and not supported, is refused where it would change the answer. Those that change
nothing (``user``, ``metadata``, ``prompt_cache_key``...) are accepted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.openai_messages import ChatMessage
from alpha_umi.serving.errors import ApiError, invalid, unsupported


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class WireFunction(_Wire):
    """A function of a tool."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    # what the tool returns, as some catalogues (BFCL's) say beside it; no part of what a call has to be, and not shown
    response: Any = None


class WireTool(_Wire):
    """A tool."""

    type: Literal["function"]
    function: WireFunction


class NamedFunction(_Wire):
    """The function of a named choice."""

    name: str


class NamedChoice(_Wire):
    """The tool that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(_Wire):
    """Of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(_Wire):
    """What the answer has to be."""

    name: str = Field(max_length=256)
    description: str | None = None
    # named otherwise, as pydantic's models have a method of this name
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Wire):
    """What form the answer has to have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(_Wire):
    """A request's body, with the bounds that hold for any server; `reading.read_request` knows the server's own."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[WireTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # accepted with the value that changes nothing
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    logit_bias: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    store: bool | None = None
    # these change nothing
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None


_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "store": (False,),
}
_INSTEAD = {"functions": "use tools", "function_call": "use tool_choice"}


def parse_request(body: Any) -> ChatRequest:
    """Checks the shape of a request.

    Raises:
        ApiError: 400, with the first parameter that is wrong.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", "invalid_json")
    given = {key: value for key, value in body.items() if value is not None}
    for name in given:
        if name not in ChatRequest.model_fields:
            raise unsupported(name, _INSTEAD.get(name, "this server does not support it; leave it out"))
    for name, harmless in _WITHOUT_EFFECT.items():
        if name in given and given[name] not in harmless:
            raise unsupported(name, f"this server does not support it; leave it out, or give {harmless[0]!r}")
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        raise _first(error) from error
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply", "invalid_json") from error


def _first(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "body"
    where = ".".join(str(part) for part in first["loc"])
    return invalid(
        name if len(where) > 100 else where,
        first["msg"],
        "invalid_type" if "type" in first["type"] else "invalid_value",
    )
