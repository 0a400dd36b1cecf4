"""From a request's body to what is asked of the agent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alpha_umi.agent import Limits
from alpha_umi.agent.limits import MAX_NEW_TOKENS
from alpha_umi.data.openai_messages import OPENAI, read_messages
from alpha_umi.data.records import RecordError
from alpha_umi.engines.base import Sampling
from alpha_umi.engines.grammars import unconstrained
from alpha_umi.serving.asked import Abilities, Asked
from alpha_umi.serving.errors import ApiError, invalid, unsupported
from alpha_umi.serving.grammars import answering, problem
from alpha_umi.serving.limits import ServerLimits
from alpha_umi.serving.wire import ChatRequest, NamedChoice, ResponseFormat, WireTool, parse_request
from alpha_umi.tools.execution import RESULT_BYTES
from alpha_umi.tools.text import observable
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolMessage, Trajectory, json_text
from alpha_umi.transcript import Voice

_JSON_OBJECT: Mapping[str, Any] = {"type": "object"}


def read_request(body: Any, abilities: Abilities, bounds: ServerLimits) -> Asked:
    """What a body asks for.

    Raises:
        ApiError: It can't be done: 400 with the parameter, or 404 for another model.
    """
    wire = parse_request(body)
    if wire.model != abilities.model:
        message = f"there is no model {wire.model[:100]!r}; this server has {abilities.model!r}"
        raise ApiError(404, message, "model_not_found", "model")
    for name, most in (("messages", bounds.messages), ("tools", bounds.tools)):
        if len(getattr(wire, name) or ()) > most:
            raise invalid(name, f"there are {len(getattr(wire, name))}; {most} are the most this server takes")
    if (wire.n or 1) > bounds.choices:
        raise invalid("n", f"{wire.n} answers are wanted; {bounds.choices} are the most this server gives")
    tools = _tools(wire.tools or (), abilities, bounds)
    allowed, required = _choice(wire, tools, abilities)
    single = wire.parallel_tool_calls is False and bool(tools)
    if single and not abilities.constrained:
        raise unsupported("parallel_tool_calls", "this server can't hold the model to one call; leave it out")
    messages = _messages(body["messages"], wire)
    _check_length(messages, tools, abilities.characters)
    return Asked(
        messages, tools, allowed, required, single,
        _answer_grammar(wire.response_format, abilities, bounds), _stops(wire), _sampling(wire), _limits(wire, bounds),
        wire.seed, wire.n or 1, bool(wire.stream), _usage(wire),
    )  # fmt: skip


def _usage(wire: ChatRequest) -> bool:
    if wire.stream_options is None:
        return False
    if not wire.stream:
        raise invalid("stream_options", "it belongs to a stream; give stream: true with it")
    return bool(wire.stream_options.include_usage)


def _stops(wire: ChatRequest) -> tuple[str, ...]:
    return (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())


def _sampling(wire: ChatRequest) -> Sampling:
    temperature = wire.temperature or 0.0
    return Sampling(temperature, (wire.top_p or 1.0) if temperature else 1.0)


def _limits(wire: ChatRequest, bounds: ServerLimits) -> Limits:
    if wire.max_tokens is not None and wire.max_completion_tokens not in (None, wire.max_tokens):
        raise invalid("max_tokens", "max_completion_tokens says something else; give only that")
    most = wire.max_completion_tokens or wire.max_tokens
    if most is None:
        return Limits(seconds=bounds.seconds)
    spans: dict[Voice, int] = {**MAX_NEW_TOKENS, "summarizer": most, "assistant": most}
    return Limits(seconds=bounds.seconds, tokens=most, max_new_tokens=spans)


# ---- tools --------------------------------------------------------------------------------------------------------


def _tools(given: Sequence[WireTool], abilities: Abilities, bounds: ServerLimits) -> tuple[Tool, ...]:
    if given and abilities.own_tools:
        raise unsupported("tools", "this server runs tools of its own; leave them out")
    tools = tuple(_tool(number, one, abilities, bounds) for number, one in enumerate(given))
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise invalid("tools", "two tools have the same name")
    size = sum(len(tool.schema) for tool in tools)
    if size > bounds.schemas_characters:
        raise invalid("tools", f"they have {size} characters as JSON; {bounds.schemas_characters} are the most")
    return tools


def _tool(number: int, given: WireTool, abilities: Abilities, bounds: ServerLimits) -> Tool:
    where = f"tools.{number}.function"
    function = given.function
    _bounded({"parameters": function.parameters or {}}, f"{where}.parameters", bounds)
    # in the words of every other source of tools, whatever the order in which a client gives the parts
    tool = Tool.of(function.name, function.description or "", function.parameters or {"type": "object"})
    if given.function.strict:
        reason = _unheld(tool) if abilities.constrained else "this server doesn't hold calls to schemas"
        if reason is not None:
            raise unsupported(f"{where}.strict", reason)
    return tool


def _unheld(tool: Tool) -> str | None:
    return unconstrained([tool]).get(tool.name)


def _bounded(value: Mapping[str, Any], where: str, bounds: ServerLimits) -> str:
    """The value as JSON text, if it is neither too large nor nested too deeply."""
    if depth(value) > bounds.schema_depth:
        raise invalid(where, f"it is nested more than {bounds.schema_depth} deep")
    text = json_text(value)
    if len(text) > bounds.schema_characters:
        raise invalid(where, f"it has {len(text)} characters as JSON; {bounds.schema_characters} are the most")
    return text


def depth(value: Any) -> int:
    """How deep a JSON value is nested; 0 for a text or a number."""
    level, layer = 0, [value]
    while layer := [one for one in layer if isinstance(one, dict | list) and one]:
        level += 1
        layer = [child for one in layer for child in (one.values() if isinstance(one, dict) else one)]
    return level


def _choice(wire: ChatRequest, tools: tuple[Tool, ...], abilities: Abilities) -> tuple[tuple[Tool, ...], bool]:
    """The tools that may be called, and whether one has to be."""
    choice = wire.tool_choice
    if choice is None or choice == "auto" or (choice == "none" and not tools and not abilities.own_tools):
        return tools, False
    if abilities.own_tools or not abilities.constrained:
        raise unsupported("tool_choice", "this server can't hold the model to it; leave it out, or give 'auto'")
    if not tools:
        raise invalid("tool_choice", "there are no tools to choose from")
    if choice == "none":
        return (), False
    if not isinstance(choice, NamedChoice):
        return tools, True
    named = tuple(tool for tool in tools if tool.name == choice.function.name)
    if not named:
        raise invalid("tool_choice", f"there is no tool {choice.function.name[:100]!r} among the tools")
    return named, True


# ---- messages -----------------------------------------------------------------------------------------------------


def _messages(raws: Sequence[Mapping[str, Any]], wire: ChatRequest) -> tuple[Message, ...]:
    for number, raw in enumerate(raws):
        if raw.get("audio") is not None:
            raise unsupported(f"messages.{number}.audio", "this server reads text alone")
    try:
        messages = read_messages(raws, wire.messages, OPENAI)
        Trajectory((), messages)
    except (RecordError, ValueError, RecursionError) as error:
        raise invalid("messages", str(error) or "nested too deeply") from error
    _all_answered(messages)
    return tuple(map(_cut, messages))


def _cut(message: Message) -> Message:
    """Of an observation that is very long, the head and the tail, as of any tool's."""
    if isinstance(message, ToolMessage):
        return replace(message, content=observable(message.content, RESULT_BYTES))
    return message


def _check_length(messages: Sequence[Message], tools: Sequence[Tool], most: int | None) -> None:
    """Refuses what is far too long before all of it is made into tokens."""
    size = sum(len(tool.schema) for tool in tools)
    # observations are cut to their budget of tokens
    size += sum(len(one.content or "") for one in messages if not isinstance(one, ToolMessage))
    if most is not None and size > most:
        message = f"the conversation has {size} characters, more than the model's context can hold; send fewer"
        raise ApiError(400, message, "context_length_exceeded", "messages")


def _all_answered(messages: Sequence[Message]) -> None:
    waiting: set[str] = set()
    for number, message in enumerate(messages):
        if isinstance(message, ToolMessage):
            waiting.discard(message.tool_call_id)
            continue
        if waiting:
            raise invalid(
                "messages", f"the calls {', '.join(sorted(waiting))} are not answered before message {number}"
            )
        if isinstance(message, AssistantMessage):
            waiting = {call.id for call in message.tool_calls}
    if waiting:
        raise invalid("messages", f"the calls {', '.join(sorted(waiting))} are not answered")


# ---- the answer's form --------------------------------------------------------------------------------------------


def _answer_grammar(wanted: ResponseFormat | None, abilities: Abilities, bounds: ServerLimits) -> str | None:
    if wanted is None or wanted.type == "text":
        return None
    if not abilities.constrained or abilities.single:
        raise unsupported("response_format", "this server can't hold the answer to it; leave it out")
    schema = _JSON_OBJECT
    if wanted.type == "json_schema":
        if wanted.json_schema is None or wanted.json_schema.schema_ is None:
            raise invalid("response_format", "json_schema.schema is missing")
        schema = json.loads(_bounded(wanted.json_schema.schema_, "response_format", bounds))
    text = answering(schema)
    reason = problem(text)
    if reason is not None:
        raise invalid("response_format", f"answers can't be held to this schema: {reason}")
    return text
