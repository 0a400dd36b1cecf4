"""Grammars for what a request asks of the roles, beyond what holds for any: made from the grammars of their voices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from alpha_umi.engines.grammars import grammar, json_rule
from alpha_umi.engines.grammars import problem as grammar_problem
from alpha_umi.trajectory import Decision, Tool
from alpha_umi.transcript import Voice


def calling(voice: Voice, tools: Sequence[Tool], *, required: bool, single: bool) -> str | None:
    """The grammar of a voice that has to call a tool, or may make one call at most; None if its own will do.

    Args:
        voice: Who speaks.
        tools: Those that may be called.
        required: A call has to be made.
        single: No more than one.
    """
    start = _start(voice, required=required, single=single) if tools else None
    own = _own(voice, tuple(tool.schema for tool in tools)) if start is not None else None
    if own is None:
        return None
    # the same rules, begun elsewhere
    return f"start: {start}\n{own.partition(chr(10))[2]}"


@lru_cache(maxsize=64)
def _own(voice: Voice, schemas: tuple[str, ...]) -> str | None:
    return grammar(voice, [Tool(schema) for schema in schemas])


def _start(voice: Voice, *, required: bool, single: bool) -> str | None:
    calls = "call" if single else "calls"
    if voice == "planner" and required:
        return f"head ({json.dumps(Decision.CALL.value)})"
    if voice == "caller" and single:
        return "call"
    if voice == "assistant" and (required or single):
        return f"call_head {calls}" if required else f"call_head {calls} | text_head text"
    return None


def answering(schema: Mapping[str, Any]) -> str:
    """The grammar of a summarizer's answer that is to be JSON of this schema."""
    return f"start: answer\nanswer: {json_rule(schema)}"


@lru_cache(maxsize=256)
def problem(text: str) -> str | None:
    """Why a request's grammar can't be compiled, in a line; None if it can. Told once for each text."""
    return grammar_problem(text)
