"""Holding a span to its grammar while it is generated.

`Constraint` belongs to a renderer and keeps the grammars it has compiled, a bounded number of them; a `Guide` follows
one span: which tokens may come next, and which must. It sees text as the renderer tokenizes it, so that tokens it
forces are those of the training data, and it never lets through a special token other than the renderer's end token.

What a grammar may cost is bounded too. A span that runs into such a bound, or into a place where its grammar has no way
on, is no longer held to it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from alpha_umi.engines.base import Request
from alpha_umi.engines.grammars import LIMITS, grammar
from alpha_umi.errors import UserError
from alpha_umi.trajectory import Tool
from alpha_umi.transcript import Renderer, Voice

_CACHED = 64


class Constraint:
    """Grammars for spans, compiled when they are first needed.

    Args:
        renderer: Its tokens are what is allowed or not.
        cached: How many compiled grammars are kept; those used least recently go first.

    Raises:
        UserError: The tokens of its tokenizer can't be read as text.
    """

    def __init__(self, renderer: Renderer, cached: int = _CACHED) -> None:
        self.end = renderer.markers.end
        words = _Words(renderer)
        self._tokenizer = LLTokenizer(TokenizerWrapper(words))
        self._cached = cached
        self._compiled: OrderedDict[bytes, LLMatcher | None] = OrderedDict()
        self.banned = frozenset(words.special_token_ids) - {self.end}
        self.size = len(words.tokens)
        allowed = np.ones(-(-self.size // 32) * 32, dtype=bool)
        allowed[[*self.banned, *range(self.size, len(allowed))]] = False
        self.free = np.packbits(allowed, bitorder="little").view(np.int32)

    def guide(self, request: Request) -> Guide | None:
        """What holds the request's span; None if nobody said what the tools are.

        A grammar that the request brings stands in place of its voice's; the text is free where it can't be compiled.
        """
        if request.grammar is not None:
            return self._guide(self._known(b"asked\n" + request.grammar.encode("utf-8", "replace"), request.grammar))
        if request.conversation is None:
            return None
        if request.voice == "summarizer":
            return self._guide(None)
        return self._guide(self._grammar(request.voice, request.conversation.tools))

    def _guide(self, compiled: LLMatcher | None) -> Guide:
        return Guide(self, compiled.deep_copy() if compiled is not None else None)

    def __len__(self) -> int:
        """How many grammars are kept."""
        return len(self._compiled)

    def _grammar(self, voice: Voice, tools: Sequence[Tool]) -> LLMatcher | None:
        # a planner's grammar only says whether there are tools
        parts = [str(bool(tools))] if voice == "planner" else [tool.schema for tool in tools]
        return self._known("\n".join([voice, *parts]).encode("utf-8", "replace"), lambda: grammar(voice, tools))

    def _known(self, name: bytes, text: str | Callable[[], str | None]) -> LLMatcher | None:
        """A grammar by what it is made of, compiled if it isn't kept."""
        key = hashlib.sha256(name).digest()
        if key not in self._compiled:
            self._compiled[key] = self._compile(text if isinstance(text, str) else text())
        self._compiled.move_to_end(key)
        while len(self._compiled) > self._cached:
            self._compiled.popitem(last=False)
        return self._compiled[key]

    def _compile(self, text: str | None) -> LLMatcher | None:
        if text is None:
            return None
        matcher = LLMatcher(self._tokenizer, text, limits=LIMITS, log_level=0)
        return None if matcher.is_error() else matcher


class Guide:
    """Where one span stands in its grammar, or, without one, that it may hold no special token."""

    def __init__(self, constraint: Constraint, matcher: LLMatcher | None) -> None:
        self._constraint = constraint
        self._matcher = matcher

    def forced(self) -> list[int]:
        """The tokens that alone can follow, up to where there is a choice; they are taken."""
        if self._matcher is None:
            return []
        tokens = self._matcher.compute_ff_tokens()
        tokens = tokens[: self._matcher.try_consume_tokens(tokens)] if tokens else []
        if not self._matcher.is_stopped():
            return tokens
        if not self._matcher.is_error():
            return [*tokens, self._constraint.end]
        self._matcher = None
        return tokens

    def take(self, token: int) -> bool:
        """Goes on with this token, unless it isn't allowed."""
        if token in self._constraint.banned or token >= self._constraint.size:
            return False
        if self._matcher is None or self._matcher.try_consume_tokens([token]):
            return True
        if self._matcher.is_error():
            self._matcher = None
        return self._matcher is None

    def surplus(self, most: int) -> int | None:
        """How many of the last tokens to take back so that a legal text is left; None if more than ``most`` would be.

        The guide is of no use afterwards.
        """
        if self._matcher is None:
            return 0
        for count in range(most + 1):
            if self._matcher.is_accepting():
                return count
            if not self._matcher.rollback(1):
                return None
        return None

    def allowed(self) -> np.ndarray:
        """The tokens that may follow, as bits of an int32 array."""
        if self._matcher is not None:
            bits = np.empty_like(self._constraint.free)
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            bits &= self._constraint.free
            if not self._matcher.is_error() and bits.any():
                return bits
            self._matcher = None
        return self._constraint.free


class _Words:
    """The renderer's tokenizer as `llguidance` wants to see it: every token's bytes, and how text becomes tokens."""

    bos_token_id = None

    def __init__(self, renderer: Renderer) -> None:
        markers, tokenizer = renderer.markers, renderer.tokenizer
        try:
            plain = llguidance.hf.from_tokenizer(cast("Any", tokenizer), eos_token=markers.end)
        except ValueError as error:
            raise UserError(
                f"what this tokenizer's tokens say can't be known ({error}), so calls can't be held to the tools' "
                "schemas: switch that off (--no-constrain)"
            ) from error
        added = tokenizer.added_tokens_decoder.items()
        headers = {header[0] for header in markers.headers.values()}
        self.tokens = [plain.decode_bytes([token]) for token in range(plain.vocab_size)]
        self.special_token_ids = sorted({markers.end, *headers, *(token for token, text in added if text.special)})
        self.eos_token_id = markers.end
        self._encode = renderer.encode

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text.decode("utf-8", "replace"))
