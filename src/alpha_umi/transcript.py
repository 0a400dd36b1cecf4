r"""One transcript, three voices: a trajectory as one append-only sequence of token ids.

A transcript is a list of segments; a segment is *header + span + end token* (and, where the tokenizer's own chat format
has one, a tail such as a line break). For a ChatML tokenizer::

    <|im_start|>system\n{system}\n\n# Tools\n{schema}\n{schema}<|im_end|>\n
    <|im_start|>user\n{text}<|im_end|>\n
    <|im_start|>planner\n{rationale}\nNext: Caller<|im_end|>\n
    <|im_start|>caller\n{"name": ..., "arguments": {...}}<|im_end|>\n
    <|im_start|>tool\n{observation}<|im_end|>\n
    <|im_start|>summarizer\n{answer}<|im_end|>\n
    <|im_start|>assistant\n{rationale}\nCall: {...}<|im_end|>\n        (only in the voice ``single``)

Who writes a span differs between roles; the text before it never does. Nothing once appended is rendered again, so the
transcript of k turns is a prefix of the transcript of k + 1, in training and at run time alike. Text from outside is
encoded so that no special token can come out of it: a tool's reply cannot speak as the planner.

Shapes: a transcript of T tokens has ``ids`` of length T; a segment's offsets count tokens from its start.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from alpha_umi.errors import UserError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["planner", "caller", "summarizer"]
Voice = Literal["planner", "caller", "summarizer", "assistant"]
Kind = Literal["system", "user", "tool", "planner", "caller", "summarizer", "assistant"]
Voices = Literal["roles", "single"]

ROLES: tuple[Role, ...] = ("planner", "caller", "summarizer")
KINDS: tuple[Kind, ...] = ("system", "user", "tool", "planner", "caller", "summarizer", "assistant")
IGNORED = -100
"""The label of a token that is not in the loss, as in torch's cross entropy."""

_FORMAT = 1
SINGLE_MARKS = {"Call: ": Decision.CALL, "Answer: ": Decision.FINISH, "Give up: ": Decision.GIVE_UP}
"""How the line of the one voice of ``single`` opens that decides, and what it decides."""
SINGLE_DECIDES = re.compile(r"(?:\A|\n)(Call: |Answer: |Give up: )")
_DECISIONS = {f"Next: {decision.value}": decision for decision in Decision}


# ---- markers: how a tokenizer opens and closes a segment ------------------------------------------------------------


@dataclass(frozen=True)
class Markers:
    """The token ids around a span.

    Attributes:
        style: ``nano``, ``chatml``, ``llama3`` or ``gemma``.
        start: Ids before the first segment (a beginning-of-text token, or none).
        headers: Ids that open a segment of each kind.
        end: The id that closes a span; the model writes it, and it is in the loss.
        tail: Ids after the end token that the program writes.
    """

    style: str
    start: tuple[int, ...]
    headers: dict[Kind, tuple[int, ...]]
    end: int
    tail: tuple[int, ...] = ()


def nano_token(kind: Kind) -> str:
    """The one special token that opens a segment of this kind in tokenizers of our own."""
    return f"<|{kind}|>"


NANO_END = "<|end|>"


def add_markers(tokenizer: PreTrainedTokenizerBase) -> int:
    """Gives a tokenizer without chat markers one special token a header and an end token; returns how many are new.

    The model's embeddings have to be resized to ``len(tokenizer)`` afterwards.
    """
    return tokenizer.add_special_tokens({"additional_special_tokens": [*map(nano_token, KINDS), NANO_END]})


def find_markers(tokenizer: PreTrainedTokenizerBase) -> Markers:
    """Recognises the tokenizer's own chat format.

    Raises:
        UserError: It has none that can be used; `add_markers` gives it one.
    """
    vocabulary = tokenizer.get_vocab()

    def ids(*parts: str) -> tuple[int, ...]:
        out: list[int] = []
        for part in parts:
            special = part.startswith("<") and part in vocabulary
            out += [vocabulary[part]] if special else _plain_ids(tokenizer, part)
        return tuple(out)

    bos = tokenizer.bos_token_id
    start = (bos,) if isinstance(bos, int) else ()
    line = ids("\n")
    headers: dict[Kind, tuple[int, ...]]
    if all(token in vocabulary for token in [*map(nano_token, KINDS), NANO_END]):
        return Markers("nano", (), {kind: ids(nano_token(kind)) for kind in KINDS}, vocabulary[NANO_END])
    if {"<|im_start|>", "<|im_end|>"} <= vocabulary.keys():
        headers = {kind: ids("<|im_start|>", f"{kind}\n") for kind in KINDS}
        return Markers("chatml", (), headers, vocabulary["<|im_end|>"], line)
    if {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= vocabulary.keys():
        headers = {kind: ids("<|start_header_id|>", kind, "<|end_header_id|>", "\n\n") for kind in KINDS}
        return Markers("llama3", start, headers, vocabulary["<|eot_id|>"])
    if {"<start_of_turn>", "<end_of_turn>"} <= vocabulary.keys():
        headers = {kind: ids("<start_of_turn>", f"{kind}\n") for kind in KINDS}
        return Markers("gemma", start, headers, vocabulary["<end_of_turn>"], line)
    raise UserError(
        "the tokenizer has no chat markers that are known (ChatML, Llama 3, Gemma or α-UMi's own): "
        "call alpha_umi.transcript.add_markers(tokenizer) and resize the model's embeddings"
    )


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of ``text`` without added tokens around it (about 5 times faster than the tokenizer's own call)."""
    backend = _backend(tokenizer)
    if backend is not None:
        return backend.encode(text, add_special_tokens=False).ids
    return list(tokenizer.encode(text, add_special_tokens=False))


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The Rust tokenizer behind a fast one, or None; truncation or padding that an earlier call left on is off."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.truncation is not None:
        backend.no_truncation()
    if backend is not None and backend.padding is not None:
        backend.no_padding()
    return backend


# ---- transcript -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A segment before it has a place: what a renderer makes and a transcript takes."""

    kind: Kind
    header: tuple[int, ...]
    span: tuple[int, ...]
    tail: tuple[int, ...] = ()
    trained: bool = False


@dataclass(frozen=True)
class Segment:
    """A segment in its place.

    Attributes:
        kind: Who speaks.
        start: Offset of the header's first token.
        span_start: Offset of the first token of the span.
        span_stop: Offset after the span's end token.
        stop: Offset after the tail.
        trained: Whether the span may be in a loss: written by a role, decided and well-formed.
        message: Index of the message it renders, or -1 for the tool list alone.
    """

    kind: Kind
    start: int
    span_start: int
    span_stop: int
    stop: int
    trained: bool
    message: int


@dataclass
class Transcript:
    """An append-only token sequence and its segments."""

    ids: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def append(self, piece: Piece, message: int = -1) -> Segment:
        """Adds a segment at the end."""
        start = len(self.ids)
        span_start = start + len(piece.header)
        span_stop = span_start + len(piece.span)
        self.ids += [*piece.header, *piece.span, *piece.tail]
        self.segments.append(Segment(piece.kind, start, span_start, span_stop, len(self.ids), piece.trained, message))
        return self.segments[-1]

    def labels(self, voices: Iterable[Voice] = (*ROLES, "assistant")) -> list[int]:
        """Loss targets: the id at each offset inside a trained span of these voices, `IGNORED` elsewhere (length T)."""
        wanted = set(voices)
        labels = [IGNORED] * len(self.ids)
        for segment in self.segments:
            if segment.trained and segment.kind in wanted:
                labels[segment.span_start : segment.span_stop] = self.ids[segment.span_start : segment.span_stop]
        return labels

    def cut(self, length: int) -> Transcript:
        """The transcript up to the last segment that ends within ``length`` tokens."""
        kept = [segment for segment in self.segments if segment.stop <= length]
        return Transcript(self.ids[: kept[-1].stop] if kept else [], kept)


# ---- renderer -------------------------------------------------------------------------------------------------------


class Renderer:
    """Turns trajectories into transcripts, and what the models write back into records.

    Args:
        tokenizer: Any Hugging Face tokenizer with known chat markers (`find_markers`).
        voices: ``roles`` (planner, caller, summarizer) or ``single`` (one assistant without role headers).
        observation_tokens: Budget of one observation; a longer one keeps its head and its tail.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, voices: Voices = "roles", observation_tokens: int = 1024
    ) -> None:
        self.tokenizer = tokenizer
        self.voices: Voices = voices
        self.observation_tokens = observation_tokens
        self.markers = find_markers(tokenizer)
        # The markers are kept out of text even where the tokenizer doesn't call them special.
        markers = {self.markers.end, *(header[0] for header in self.markers.headers.values())}
        added = tokenizer.added_tokens_decoder.items()
        special = {token.content: i for i, token in added if token.special or i in markers}
        self._forbidden = frozenset(special.values()) | markers
        names = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._cached_encode = lru_cache(maxsize=4096)(self._encode)

    # -- identity

    @property
    def fingerprint(self) -> str:
        """Names everything that decides which ids a trajectory becomes; 16 hexadecimal digits."""
        backend = _backend(self.tokenizer)
        tokenizer = backend.to_str() if backend is not None else json.dumps(sorted(self.tokenizer.get_vocab().items()))
        parts = (_FORMAT, self.voices, self.observation_tokens, self.markers, tokenizer)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    # -- text and ids

    def encode(self, text: str) -> list[int]:
        """Ids of text from outside; none of them is a special token, whatever the text says."""
        return list(self._encode(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        out: list[int] = []
        at = 0
        for match in self._special.finditer(text):
            out += self._encode_piece(text[at : match.start() + 1])
            at = match.start() + 1
        return (*out, *self._encode_piece(text[at:]))

    def _encode_piece(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            ids = _plain_ids(self.tokenizer, text)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, legal in JSON, has no UTF-8 form
            ids = _plain_ids(self.tokenizer, text.encode("utf-8", "replace").decode())
        if len(text) > 1 and not self._forbidden.isdisjoint(ids):
            middle = len(text) // 2
            return self._encode_piece(text[:middle]) + self._encode_piece(text[middle:])
        return [i for i in ids if i not in self._forbidden]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a span's ids; an end token at its end is left out."""
        return self.show(ids[:-1] if ids and ids[-1] == self.markers.end else ids)

    def show(self, ids: Sequence[int]) -> str:
        """Text of any ids, special tokens by their names."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    # -- pieces

    def header(self, kind: Kind) -> tuple[int, ...]:
        """Ids that open a segment of this kind: what a role is prompted with after the transcript so far."""
        return self.markers.headers[kind]

    def written(self, voice: Voice, ids: Sequence[int]) -> Piece:
        """A segment from generated ids, kept as they are; a span that was cut gets its end token here."""
        span = tuple(ids)
        if not span or span[-1] != self.markers.end:
            span = (*span, self.markers.end)
        return Piece(voice, self.header(voice), span, self.markers.tail)

    def observation(self, text: str) -> Piece:
        """A tool segment; of a text over the budget the head and the tail are kept and the cut is marked."""
        ids = self._encode(text)
        budget = self.observation_tokens
        if len(ids) > budget:
            mark: tuple[int, ...] = ()
            for _ in range(3):  # the mark takes room too, and its number may grow by a digit for that
                mark = self._encode(f"\n[... {len(ids) - budget + len(mark)} tokens cut ...]\n")
            room = max(budget - len(mark), 0)
            tail = room // 3
            ids = (ids[: room - tail] + mark + ids[len(ids) - tail :])[:budget]
        return self._piece("tool", ids)

    def _piece(self, kind: Kind, ids: Sequence[int], trained: bool = False) -> Piece:
        return Piece(kind, self.header(kind), (*ids, self.markers.end), self.markers.tail, trained)

    def _system(self, system: str | None, tools: Sequence[Tool]) -> Piece:
        ids: list[int] = list(self._encode(system)) if system else []
        if tools:
            ids += self._cached_encode("\n\n# Tools" if system else "# Tools")
            for tool in tools:
                ids += self._cached_encode("\n" + tool.schema)
        return self._piece("system", ids)

    def message(self, message: Message) -> list[Piece]:
        """The segments of one message (a system message is rendered with the tools, by `render`)."""
        if isinstance(message, ToolMessage):
            return [self.observation(message.content)]
        if isinstance(message, AssistantMessage):
            if self.voices == "single":
                return self._single(message)
            return self._roles(message)
        return [self._piece(message.role, self._encode(message.content))]

    def _roles(self, message: AssistantMessage) -> list[Piece]:
        decided = message.decision
        pieces = [self._piece("planner", self._encode(planner_text(message)), trained=decided is not None)]
        if message.tool_calls:
            text = caller_text(message.tool_calls)
            pieces.append(self._piece("caller", self._encode(text), trained=_well_formed(message.tool_calls)))
        elif message.content is not None:
            pieces.append(self._piece("summarizer", self._encode(message.content), trained=True))
        return pieces

    def _single(self, message: AssistantMessage) -> list[Piece]:
        trained = message.decision is not None and _well_formed(message.tool_calls)
        return [self._piece("assistant", self._encode(single_text(message)), trained)]

    # -- whole trajectories

    def render(self, trajectory: Trajectory) -> Transcript:
        """The transcript of a whole trajectory; the system message and the tools come first, in one segment."""
        messages = trajectory.messages
        system = messages[0].content if messages and isinstance(messages[0], SystemMessage) else None
        transcript = Transcript(list(self.markers.start))
        if system is not None or trajectory.tools:
            transcript.append(self._system(system, trajectory.tools), 0 if system is not None else -1)
        for number, message in enumerate(messages):
            if number == 0 and system is not None:
                continue
            for piece in self.message(message):
                transcript.append(piece, number)
        return transcript


# ---- what roles write, and reading it back --------------------------------------------------------------------------


def planner_text(message: AssistantMessage) -> str:
    r"""``{rationale}\nNext: {decision}``; without a rationale or a decision that part is left out."""
    parts = [message.reasoning_content] if message.reasoning_content else []
    if message.decision is not None:
        parts.append(f"Next: {message.decision.value}")
    return "\n".join(parts)


def caller_text(calls: Sequence[ToolCall]) -> str:
    """One JSON object a line; the arguments (of a malformed call, everything) verbatim."""
    return "\n".join(
        call.arguments
        if call.malformed
        else f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments}}}'
        for call in calls
    )


def single_text(message: AssistantMessage) -> str:
    """What the one voice of ``single`` writes: a rationale, then a call, an answer or giving up."""
    parts = [message.reasoning_content] if message.reasoning_content else []
    if message.tool_calls:
        parts.append("Call: " + caller_text(message.tool_calls))
    elif message.content is not None:
        parts.append("Answer: " + message.content)
    elif message.refusal is not None:
        parts.append("Give up: " + message.refusal)
    return "\n".join(parts)


def unmarked(rationale: str) -> str:
    """A foreign rationale for `single_text`: lines that would be read as the decision are indented."""
    return _SINGLE_MARK.sub(" ", rationale)


def parse_planner(text: str) -> tuple[str, Decision | None]:
    """Reads a planner span: the rationale, and the decision if its last line is one."""
    rationale, _, last = text.rpartition("\n")
    decision = _DECISIONS.get(last.strip())
    return (rationale, decision) if decision is not None else (text, None)


def parse_single(text: str, first_id: int = 0) -> AssistantMessage:
    """Reads an assistant span; the first line that opens with ``Call:``, ``Answer:`` or ``Give up:`` decides."""
    match = SINGLE_DECIDES.search(text)
    if match is None:
        return AssistantMessage(reasoning_content=text)
    rationale = text[: match.start()] if match.start() or match.group(0)[0] == "\n" else None
    rest = text[match.end() :]
    decision = SINGLE_MARKS[match.group(1)]
    if decision is Decision.CALL:
        return AssistantMessage(rationale, tool_calls=parse_calls(rest, first_id))
    if decision is Decision.FINISH:
        return AssistantMessage(rationale, content=rest)
    return AssistantMessage(rationale, refusal=rest)


_SINGLE_MARK = re.compile(r"^(?=(?:Call|Answer|Give up): )", re.MULTILINE)
_NAME = re.compile(
    r'\{[ \t]*"name"[ \t]*:[ \t]*("(?:[^"\\\x00-\x1f]|\\.)*")[ \t]*,[ \t]*"arguments"[ \t]*: ?'
)  # one space at most, which is ours: what follows belongs to the arguments
_NEXT_CALL = re.compile(r'\n(?=\{[ \t]*"name"[ \t]*:)')
_LENIENT_NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.)*)"')
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def parse_calls(text: str, first_id: int = 0) -> tuple[ToolCall, ...]:
    """Reads a caller span: one call or several, ids ``call_{first_id}`` and on. Never raises, never empty.

    The arguments stay the very characters that were written. What is no call is kept whole, as a malformed one.
    """
    calls: list[ToolCall] = []
    at = 0
    while at <= len(text):
        name = f"call_{first_id + len(calls)}"
        read = _read_call(text, at)
        if read is not None:
            call_name, arguments, at = read
            calls.append(ToolCall(name, call_name, arguments))
        else:
            boundary = _NEXT_CALL.search(text, at)
            stop = boundary.start() if boundary else len(text)
            calls.append(_malformed(name, text[at:stop]))
            at = stop
        if at >= len(text):
            break
        at += 1
    return tuple(calls)


def _read_call(text: str, at: int) -> tuple[str, str, int] | None:
    """Name, verbatim arguments and the offset after a well-formed call that opens at ``at`` and fills its line."""
    head = _NAME.match(text, at)
    if head is None:
        return None
    try:
        name = json.loads(head.group(1))
        value, stop = _DECODER.raw_decode(text, _after_space(text, head.end()))
    except (ValueError, RecursionError):  # ValueError: not JSON, or an integer of thousands of digits
        return None
    stop = _after_space(text, stop)
    if not isinstance(value, dict) or text[stop : stop + 1] != "}" or text[stop + 1 : stop + 2] not in ("", "\n"):
        return None
    return name, text[head.end() : stop], stop + 1


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _well_formed(calls: Sequence[ToolCall]) -> bool:
    """Whether all calls read back as what they are; an imported record may hold one that doesn't and isn't marked."""
    if not calls or any(call.malformed for call in calls):
        return not calls
    read = parse_calls(caller_text(calls))
    return [(c.name, c.arguments, c.malformed) for c in read] == [(c.name, c.arguments, False) for c in calls]


def _malformed(call_id: str, text: str) -> ToolCall:
    found = _LENIENT_NAME.search(text)
    return ToolCall(call_id, found.group(1) if found else "", text, malformed=True)
