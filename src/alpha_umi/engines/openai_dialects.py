"""How a request for a span becomes a request to an endpoint, and its reply a span: three ways.

=============== ====================================================================================================
`ChatAgent`     chat API, one voice: messages and tools; calls, content and refusal are read back
`ChatRole`      chat API, a role: an instruction and the conversation as text (`alpha_umi.engines.openai_roles`)
`TokenPrompt`   completions API: the transcript's own token ids, and ids back where the server gives them
=============== ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alpha_umi.engines.base import Conversation, Ending, Generation, Request, Sampling
from alpha_umi.engines.openai_client import Refused, Reply
from alpha_umi.engines.openai_config import Endpoint
from alpha_umi.engines.openai_roles import filtered_text, role_messages, role_text
from alpha_umi.engines.openai_wire import FILTERED, Names, read_turn, readable, wire_messages, wire_tools
from alpha_umi.engines.repetition import before_repetition
from alpha_umi.trajectory import SystemMessage, Tool, Trajectory
from alpha_umi.transcript import Renderer, Role, caller_text, single_text
from alpha_umi.validation import declared_parameters

NOTHING = Generation((), Ending.CONTEXT)
"""Where the conversation is too long for the model."""


class Dialect(Protocol):
    """How an endpoint is spoken to."""

    def body(self, request: Request, sampling: Sampling) -> dict[str, Any] | None:
        """The request, without the model's name; None if there is no room for a token."""
        ...

    def read(self, request: Request, reply: Reply | Refused) -> Generation:
        """The span that an answer makes."""
        ...


# ---- chat -----------------------------------------------------------------------------------------------------------


class ChatAgent:
    """One function-calling chat model; the transcript only keeps the books."""

    def __init__(self, endpoint: Endpoint, renderer: Renderer, shots: Sequence[Trajectory] = ()) -> None:
        self._endpoint, self._renderer = endpoint, renderer
        self._shots = [m for shot in shots for m in shot.messages if not isinstance(m, SystemMessage)]

    def body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """Messages and tools."""
        so_far = _conversation(request)
        names = Names(so_far.tools)
        system = [m.content for m in so_far.messages[:1] if isinstance(m, SystemMessage)]
        rest = so_far.messages[len(system) :]
        if self._endpoint.system:
            system.insert(0, self._endpoint.system)
        head = [SystemMessage("\n\n".join(system))] if system else []
        messages = wire_messages([*head, *self._shots, *rest], names, self._endpoint.rationale)
        tools = {"tools": wire_tools(so_far.tools, names)} if so_far.tools else {}
        return {"messages": messages, **tools, **_options(self._endpoint, request, sampling)}

    def read(self, request: Request, reply: Reply | Refused) -> Generation:
        """The turn, in the words of our transcript."""
        if reply is Refused.CONTEXT:
            return NOTHING
        if isinstance(reply, Refused):
            return _written(self._renderer, filtered_text("assistant"), None)
        turn = read_turn(reply.choice, Names(_conversation(request).tools))
        return _written(self._renderer, single_text(readable(turn)), reply)


class ChatRole:
    """A chat model that is told to play a role; the transcript only keeps the books."""

    def __init__(self, role: Role, endpoint: Endpoint, renderer: Renderer, shots: Sequence[Trajectory] = ()) -> None:
        self._role: Role = role
        self._endpoint, self._renderer, self._shots = endpoint, renderer, shots

    def body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """The instruction and the conversation."""
        messages = role_messages(self._role, _conversation(request), self._shots, self._endpoint.system)
        return {"messages": messages, **_options(self._endpoint, request, sampling)}

    def read(self, request: Request, reply: Reply | Refused) -> Generation:
        """The role's text, in the words of our transcript."""
        if reply is Refused.CONTEXT:
            return NOTHING
        if isinstance(reply, Refused):
            return _written(self._renderer, filtered_text(self._role), None)
        turn = read_turn(reply.choice, Names(_conversation(request).tools))
        if turn.refusal == FILTERED:
            return _written(self._renderer, filtered_text(self._role), reply)
        if self._role == "caller" and turn.tool_calls:
            return _written(self._renderer, caller_text(readable(turn).tool_calls), reply)
        message = reply.choice.get("message")
        content = message.get("content") if isinstance(message, Mapping) else None
        return _written(self._renderer, role_text(self._role, content if isinstance(content, str) else ""), reply)


def _conversation(request: Request) -> Conversation:
    assert request.conversation is not None, "a chat is made of messages, not of tokens"
    return request.conversation


def _written(renderer: Renderer, text: str, reply: Reply | None) -> Generation:
    """A span of this text; only a reply that was not cut ends with the end token."""
    ids = tuple(renderer.encode(text))
    ended = Ending.LENGTH if reply is not None and reply.finish_reason == "length" else Ending.END
    if ended is Ending.END:
        ids = (*ids, renderer.markers.end)
    return _counted(ids, ended, reply)


def _counted(ids: tuple[int, ...], ended: Ending, reply: Reply | None, logprob: float | None = None) -> Generation:
    if reply is None:
        return Generation(ids, ended, logprob=logprob)
    computed = max(reply.prompt_tokens - reply.cached_tokens, 0)
    return Generation(ids, ended, computed, reply.cached_tokens, logprob=logprob)


def _options(endpoint: Endpoint, request: Request, sampling: Sampling, most: int | None = None) -> dict[str, Any]:
    """Length, sampling and what the file adds."""
    wanted = sampling.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
    out: dict[str, Any] = {endpoint.max_tokens_field: most or endpoint.max_tokens or wanted}
    if endpoint.sampling:
        out["temperature"] = sampling.temperature
        if sampling.temperature > 0:
            out |= {"top_p": sampling.top_p, "seed": _seed(request, sampling)}
    return out | ({"extra_body": dict(endpoint.extra_body)} if endpoint.extra_body else {})


def _seed(request: Request, sampling: Sampling) -> int:
    """Another one for every seed, session and place, and the same each time."""
    return hash((sampling.seed, request.session, len(request.ids))) % (1 << 31)


# ---- token ids ------------------------------------------------------------------------------------------------------


class TokenPrompt:
    """A model of a run, behind a completions API that takes token ids (vLLM, llama.cpp's server).

    Where the reply has ``token_ids`` (vLLM), the span is what was generated, up to where the engine in process
    stops one that repeats itself; otherwise it is its text, encoded anew.

    Args:
        endpoint: Where it is asked.
        renderer: Of the run.
        context: Tokens of prompt and span together.
        constrain: Send structured outputs, if the endpoint has them.
    """

    def __init__(self, endpoint: Endpoint, renderer: Renderer, context: int, constrain: bool = True) -> None:
        self._endpoint, self._renderer, self._context = endpoint, renderer, context
        self._structured = endpoint.structured_outputs if constrain else "off"

    def body(self, request: Request, sampling: Sampling) -> dict[str, Any] | None:
        """The transcript and the voice's header."""
        prompt = [*request.ids, *self._renderer.header(request.voice)]
        wanted = sampling.max_new_tokens if request.max_new_tokens is None else request.max_new_tokens
        most = min(self._endpoint.max_tokens or wanted, self._context - len(prompt))
        if most < 1:
            return None
        body = {"prompt": prompt, **_options(self._endpoint, request, sampling, most)}
        extra = {"return_token_ids": True, "stop_token_ids": [self._renderer.markers.end]}
        structure = self._structure(request)
        if structure:
            extra["structured_outputs"] = structure
        body["extra_body"] = extra | body.get("extra_body", {})
        return body | ({"logprobs": 1} if sampling.logprobs else {})

    def _structure(self, request: Request) -> dict[str, Any] | None:
        so_far = request.conversation
        if self._structured == "vllm-grammar":
            from alpha_umi.engines.grammars import grammar

            own = grammar(request.voice, so_far.tools) if so_far is not None else None
            text = request.grammar or own
            return None if text is None else {"grammar": text}
        if self._structured == "off" or so_far is None or request.voice != "caller" or not so_far.tools:
            return None
        return {"json": call_schema(so_far.tools)}

    def read(self, request: Request, reply: Reply | Refused) -> Generation:
        """The ids that were generated."""
        if reply is Refused.CONTEXT:
            return NOTHING
        if isinstance(reply, Refused):
            return _written(self._renderer, filtered_text(request.voice), None)
        end = self._renderer.markers.end
        given = reply.choice.get("token_ids")
        if not isinstance(given, list) or not all(type(token) is int for token in given):
            text = reply.choice.get("text")
            ending = self._renderer.show([end])
            return _written(self._renderer, text.removesuffix(ending) if isinstance(text, str) else "", reply)
        ids = tuple(given)
        if end in ids:
            ids = ids[: ids.index(end) + 1]
        elif reply.finish_reason == "stop":
            # a grammar that is complete may only allow the tokenizer's own end of text
            foreign = ids[-1:] == (self._renderer.tokenizer.eos_token_id,)
            ids = (*(ids[:-1] if foreign else ids), end)
        ended = Ending.END if end in ids else Ending.LENGTH
        kept = before_repetition(ids)
        if kept < len(ids):  # the server went on, the engine in process would not have
            ids, ended = ids[:kept], Ending.REPETITION
        return _counted(ids, ended, reply, _logprob(reply, len(ids)))


def _logprob(reply: Reply, count: int) -> float | None:
    """Of the first ``count`` tokens, if the server says how probable each was."""
    told = reply.choice.get("logprobs")
    each = told.get("token_logprobs") if isinstance(told, Mapping) else None
    if not isinstance(each, list) or not all(isinstance(one, int | float) for one in each[:count]):
        return None
    return float(sum(each[:count]))


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of one call of one of the tools.

    An object that lists its parameters takes no others. References, which would point elsewhere inside this schema,
    leave the arguments of their tool free.
    """
    return {"anyOf": [_one_call(tool) for tool in tools]}


def _one_call(tool: Tool) -> dict[str, Any]:
    arguments: dict[str, Any] = {"type": "object"}
    if '"$ref"' not in tool.schema and '"$dynamicRef"' not in tool.schema:
        closed = {} if declared_parameters(tool) is None else {"additionalProperties": False}
        arguments = {**tool.parameters, "type": "object", **closed}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
