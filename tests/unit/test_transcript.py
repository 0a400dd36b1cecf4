"""What the transcript promises, for tokenizers of every kind it knows."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

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
    UserMessage,
)
from alpha_umi.transcript import (
    IGNORED,
    KINDS,
    NANO_END,
    ROLES,
    Renderer,
    Transcript,
    Voices,
    add_markers,
    caller_text,
    find_markers,
    nano_token,
    parse_calls,
    parse_planner,
    parse_single,
    planner_text,
    single_text,
)
from tests.tokenizers import Sample, chatml, letters_only, llama3, nano, samples, without_markers

every_tokenizer = pytest.mark.parametrize("sample", samples(), ids=str)
every_voice = pytest.mark.parametrize("voices", ["roles", "single"])
either_voice = st.sampled_from(["roles", "single"])

# ---- what to render: texts that try to be more than text ------------------------------------------------------------


def full_width(text: str) -> str:
    """The look-alike that compatibility normalisation (NFKC) turns back into ``text``."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in text)


_FRAGMENTS = [
    *(nano_token(kind) for kind in KINDS),
    NANO_END,
    "<|pad|>",
    "<|im_start|>planner\n",
    "<|im_end|>\n<|im_start|>tool\n",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|start_header_id|>caller<|end_header_id|>\n\n",
    "<|eot_id|>",
    "<bos><start_of_turn>planner\n",
    "<end_of_turn>\n",
    "<unk>",
    "<0x0A>",
    "<think></think>",
    '<tool_call>{"name": "x"}</tool_call>',
    # halves, and tokens in tokens
    "<|",
    "|>",
    "<|im_",
    "start|>",
    "<start_of",
    "_turn>",
    "<|<|planner|>planner|>",
    "<|im_<|im_start|>start|>",
    "<<|end|>|end|>",
    # full-width look-alikes
    full_width("<|im_start|>") + "planner\n",
    full_width("<") + "|im_end|>",
    "<|im_" + full_width("end") + "|>",
    # what roles write
    "\nNext: Caller",
    "Next: Give up",
    "\nCall: ",
    "\nAnswer: ",
    '\n{"name": "f", "arguments": {}}',
    "\n",
    " ",
    "é\u0301",
]
# Every assigned character but surrogates, so that this Python and the tokenizer agree about normal forms.
_letters = st.characters(exclude_categories=["Cs", "Cn", "Co"])
texts = st.lists(st.sampled_from(_FRAGMENTS) | st.text(_letters, max_size=5), max_size=6).map("".join)
_surrogates = st.characters(categories=["Cs"])
any_text = st.text(st.characters(exclude_categories=()) | _surrogates, max_size=20)
ragged = st.lists(st.sampled_from(_FRAGMENTS) | any_text | _surrogates, max_size=6).map("".join)

_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
_padding = st.sampled_from(["", "", " ", "\n", "\t\r\n "])


@st.composite
def arguments_texts(draw: st.DrawFn) -> str:
    """A JSON object the way anybody might space it."""
    value = draw(st.dictionaries(texts, _values, max_size=3))
    indent = draw(st.sampled_from([None, None, 0, 2, "\t"]))
    separators = draw(st.sampled_from([None, (",", ":"), (" , ", " :\n ")]))
    written = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent, separators=separators)
    return draw(_padding) + written + draw(_padding)


@st.composite
def call_lists(draw: st.DrawFn) -> tuple[ToolCall, ...]:
    """Well-formed calls, numbered as `parse_calls` numbers them."""
    made = draw(st.lists(st.tuples(texts, arguments_texts()), min_size=1, max_size=3))
    return tuple(ToolCall(f"call_{number}", name, arguments) for number, (name, arguments) in enumerate(made))


malformed = texts.map(lambda text: (ToolCall("call_0", "", text, malformed=True),))
rationales = st.none() | texts
decided_turns = st.one_of(
    st.builds(AssistantMessage, reasoning_content=rationales, tool_calls=call_lists()),
    st.builds(AssistantMessage, reasoning_content=rationales, content=texts),
    st.builds(AssistantMessage, reasoning_content=rationales, refusal=texts),
)
other_turns = st.one_of(
    st.builds(AssistantMessage, reasoning_content=rationales),
    st.builds(AssistantMessage, reasoning_content=rationales, tool_calls=malformed),
)
tools = st.builds(Tool.of, texts.map(lambda text: text or "f"), texts, st.just({"type": "object", "properties": {}}))


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """A few turns of everything: each call answered, some of them malformed, some turns undecided."""
    messages: list[Message] = [SystemMessage(draw(texts))] if draw(st.booleans()) else []
    for turn in draw(st.lists(texts | decided_turns | other_turns, max_size=4)):
        if isinstance(turn, str):
            messages.append(UserMessage(turn))
            continue
        messages.append(turn)
        messages += [ToolMessage(call.id, draw(texts)) for call in turn.tool_calls]
    return Trajectory(tuple(draw(st.lists(tools, max_size=2))), tuple(messages))


@cache
def renderer_of(sample: Sample, voices: Voices = "roles") -> Renderer:
    """The sample's renderer; it isn't changed by what it renders."""
    return Renderer(sample.tokenizer, voices)


def spans(renderer: Renderer, message: AssistantMessage) -> dict[str, str]:
    """The decoded text of each span that a lone turn renders to, by who speaks."""
    transcript = renderer.render(Trajectory((), (message,)))
    return {s.kind: renderer.decode(transcript.ids[s.span_start : s.span_stop]) for s in transcript.segments}


def special_ids(sample: Sample) -> set[int]:
    """Everything that text must not become."""
    added = sample.tokenizer.added_tokens_decoder
    return set(sample.tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


# ---- segments, spans and the loss -----------------------------------------------------------------------------------


@given(voices=either_voice, trajectory=trajectories())
def test_rendering_some_turns_is_a_prefix_of_rendering_more(voices: Voices, trajectory: Trajectory) -> None:
    first = 1 if trajectory.messages and isinstance(trajectory.messages[0], SystemMessage) else 0
    for sample in samples():
        renderer = Renderer(sample.tokenizer, voices, observation_tokens=12)
        whole = renderer.render(trajectory)
        for turns in range(first, len(trajectory.messages)):
            part = renderer.render(Trajectory(trajectory.tools, trajectory.messages[:turns]))
            assert part.ids == whole.ids[: len(part.ids)], sample.name
            assert part.segments == whole.segments[: len(part.segments)]
            assert part.segments == whole.cut(len(part.ids)).segments


@given(voices=either_voice, trajectory=trajectories())
def test_segments_tile_the_transcript_and_the_loss_is_what_roles_wrote(voices: Voices, trajectory: Trajectory) -> None:
    for sample in samples():
        check_segments(sample, voices, trajectory)


def check_segments(sample: Sample, voices: Voices, trajectory: Trajectory) -> None:
    renderer = renderer_of(sample, voices)
    transcript = renderer.render(trajectory)
    markers = find_markers(sample.tokenizer)
    at = len(markers.start)
    assert transcript.ids[:at] == list(markers.start)
    in_loss: set[int] = set()
    for segment in transcript.segments:
        assert segment.start == at
        assert tuple(transcript.ids[at : segment.span_start]) == markers.headers[segment.kind]
        assert transcript.ids[segment.span_stop - 1] == markers.end
        assert tuple(transcript.ids[segment.span_stop : segment.stop]) == markers.tail
        at = segment.stop
        in_loss |= set(range(segment.span_start, segment.span_stop)) if segment.trained else set()
    assert at == len(transcript.ids)
    assert [(s.kind, s.trained) for s in transcript.segments] == expected_segments(trajectory, voices)
    labels = transcript.labels()
    assert labels == [i if at in in_loss else IGNORED for at, i in enumerate(transcript.ids)]


def expected_segments(trajectory: Trajectory, voices: Voices) -> list[tuple[str, bool]]:
    """Who speaks, and whether it is in the loss, by the words of the design."""
    has_system = bool(trajectory.messages) and isinstance(trajectory.messages[0], SystemMessage)
    out: list[tuple[str, bool]] = [("system", False)] if trajectory.tools and not has_system else []
    for message in trajectory.messages:
        if not isinstance(message, AssistantMessage):
            out.append((message.role, False))
            continue
        decided = message.decision is not None
        readable = not any(call.malformed for call in message.tool_calls)
        if voices == "single":
            out.append(("assistant", decided and readable))
            continue
        out.append(("planner", decided))
        if message.tool_calls:
            out.append(("caller", readable))
        if message.content is not None:
            out.append(("summarizer", True))
    return out


@every_tokenizer
def test_labels_of_one_role_are_its_own_spans(sample: Sample) -> None:
    call = ToolCall("call_0", "f", '{"a": 1}')
    trajectory = Trajectory(
        (Tool.of("f", "", {}),),
        (
            UserMessage("go"),
            AssistantMessage("I need f.", (call,)),
            ToolMessage("call_0", "done"),
            AssistantMessage("That is all.", content="It is done."),
        ),
    )
    renderer = Renderer(sample.tokenizer)
    transcript = renderer.render(trajectory)
    end = sample.tokenizer.convert_ids_to_tokens(find_markers(sample.tokenizer).end)
    written = {role: sample.tokenizer.decode([i for i in transcript.labels([role]) if i != IGNORED]) for role in ROLES}
    assert written == {
        "planner": f"I need f.\nNext: Caller{end}That is all.\nNext: Summarizer{end}",
        "caller": f'{{"name": "f", "arguments": {{"a": 1}}}}{end}',
        "summarizer": f"It is done.{end}",
    }


@every_voice
@pytest.mark.parametrize("arguments", ["", "[1]", "null", "{'a': 1}", '{"a": 1', '{}}\n{"name": "g", "arguments": {}'])
def test_a_call_that_could_not_be_read_back_is_never_in_the_loss(voices: Voices, arguments: str) -> None:
    call = ToolCall("call_0", "f", arguments)  # as an imported log may have it, unmarked
    renderer = Renderer(nano(), voices)
    kinds = {piece.kind: piece.trained for piece in renderer.message(AssistantMessage("r", (call,)))}
    assert kinds == ({"planner": True, "caller": False} if voices == "roles" else {"assistant": False})


def test_cutting_keeps_whole_segments() -> None:
    renderer = Renderer(llama3())
    transcript = renderer.render(Trajectory((), (UserMessage("one"), UserMessage("two"))))
    first = transcript.segments[0]
    assert transcript.cut(len(transcript.ids)).ids == transcript.ids
    assert transcript.cut(len(transcript.ids) - 1).ids == transcript.ids[: first.stop]
    assert transcript.cut(first.stop - 1).segments == []


# ---- reading back what was rendered ---------------------------------------------------------------------------------


@given(turn=decided_turns | other_turns)
def test_what_the_three_roles_wrote_reads_back(turn: AssistantMessage) -> None:
    for sample in samples():
        # A rationale that ends like a decision can't be told from one.
        if turn.decision or parse_planner(sample.normal(turn.reasoning_content or ""))[1] is None:
            check_roles(sample, turn)


def check_roles(sample: Sample, turn: AssistantMessage) -> None:
    normal = sample.normal
    written = spans(renderer_of(sample), turn)
    rationale, decision = parse_planner(written["planner"])
    assert normal(rationale) == normal(turn.reasoning_content or "")
    assert decision == turn.decision
    assert ("summarizer" in written) == (turn.content is not None)
    assert normal(written.get("summarizer", "")) == normal(turn.content or "")
    assert ("caller" in written) == bool(turn.tool_calls)
    if turn.tool_calls:
        same_calls(sample, parse_calls(written["caller"]), turn.tool_calls)


@given(turn=decided_turns | other_turns)
def test_what_the_single_voice_wrote_reads_back(turn: AssistantMessage) -> None:
    for sample in samples():
        # A rationale with a line that opens like a decision can't be told from one.
        if not _MARK_LINE.search(sample.normal(turn.reasoning_content or "")):
            check_single(sample, turn)


_MARK_LINE = re.compile(r"(?:\A|\n)(Call|Answer|Give up): ")


def check_single(sample: Sample, turn: AssistantMessage) -> None:
    normal = sample.normal
    read = parse_single(spans(renderer_of(sample, "single"), turn)["assistant"])
    assert normal(read.reasoning_content or "") == normal(turn.reasoning_content or "")
    assert read.decision == turn.decision
    assert normal(read.content or "") == normal(turn.content or "")
    assert normal(read.refusal or "") == normal(turn.refusal or "")
    if turn.tool_calls:
        same_calls(sample, read.tool_calls, turn.tool_calls)


def same_calls(sample: Sample, read: tuple[ToolCall, ...], given: tuple[ToolCall, ...]) -> None:
    """Compares up to what the tokenizer makes of any text."""
    if any(call.malformed for call in given):
        # Text that isn't a call may happen to hold one: what counts is that all of it is kept.
        assert sample.normal(caller_text(read)) == sample.normal(caller_text(given))
        return
    broken = any(call.malformed for call in parse_calls(sample.normal(caller_text(given))))
    if sample.normal is not str and broken:  # a normaliser may break JSON: ``\n`` and a combining tilde become ``\ñ``
        return
    assert [(c.id, sample.normal(c.name), sample.normal(c.arguments), c.malformed) for c in read] == [
        (c.id, sample.normal(c.name), sample.normal(c.arguments), c.malformed) for c in given
    ]


@given(calls=call_lists(), broken=texts, first=st.integers(0, 9))
def test_a_malformed_call_spoils_none_before_it(calls: tuple[ToolCall, ...], broken: str, first: int) -> None:
    assume(broken and '{"name": ' not in broken)
    mixed = (*calls, ToolCall("", "", broken, malformed=True))
    read = parse_calls(caller_text(mixed), first)
    assert [(c.name, c.arguments) for c in read[:-1]] == [(c.name, c.arguments) for c in calls]
    assert (read[-1].arguments, read[-1].malformed) == (broken, True)
    assert [c.id for c in read] == [f"call_{first + number}" for number in range(len(mixed))]


def test_a_malformed_call_spoils_none_after_it() -> None:
    good = '{"name": "f", "arguments": {"a": "\\n"}}'
    read = parse_calls('{"name": "weather", "arguments": {"a\n' + good)
    assert [(c.name, c.malformed) for c in read] == [("weather", True), ("f", False)]
    assert read[1].arguments == '{"a": "\\n"}'


@given(turn=decided_turns)
def test_a_turn_reads_back_from_its_text(turn: AssistantMessage) -> None:
    assert parse_planner(planner_text(turn)) == (turn.reasoning_content or "", turn.decision)
    assume(not _MARK_LINE.search(turn.reasoning_content or ""))
    expected = AssistantMessage(turn.reasoning_content or None, turn.tool_calls, turn.content, turn.refusal)
    assert parse_single(single_text(turn)) == expected


_edits = st.tuples(
    st.floats(0, 1), st.integers(0, 4), st.sampled_from(["", '"', "\\", "{", "}", "\n", "\x00", "\ud800"])
)


@st.composite
def almost_calls(draw: st.DrawFn) -> str:
    """What a small model may write: calls with a few characters lost, or put in."""
    text = caller_text(draw(call_lists()))
    for where, lost, put in draw(st.lists(_edits, max_size=3)):
        at = int(where * len(text))
        text = text[:at] + put + text[at + lost :]
    return text


def _as_we_write(call: ToolCall) -> str:
    return f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments}}}'


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"f","arguments":{"a":"}, "}}',
        '{ "name" : "f" , "arguments" :{"a":"}, "}}',
        '{"name":"f","arguments": {"a":"}, "} }',
    ],
)
def test_a_call_is_read_however_its_json_is_spaced(text: str) -> None:
    first, second = parse_calls(f"{text}\n{text}")
    assert not first.malformed and not second.malformed
    assert (first.name, first.parsed(), second.parsed()) == ("f", {"a": "}, "}, {"a": "}, "})


@given(text=almost_calls() | ragged | any_text)
def test_reading_never_raises_and_loses_nothing(text: str) -> None:
    calls = parse_calls(text)
    assert calls
    assert all(call.malformed or call.parsed() is not None for call in calls)
    if all(call.malformed or _as_we_write(call) in text for call in calls):
        assert caller_text(calls) == text  # but for other spaces, and a name with needless escapes
    rationale, decision = parse_planner(text)
    assert rationale == text if decision is None else text.startswith(rationale)
    parse_single(text)
    parse_single("Call: " + text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\x00",
        "\ud800",
        "[" * 100_000,
        '{"name": "f", "arguments": ' + "[" * 100_000,
        '{"name": "f", "arguments": ' + '{"a": ' * 100_000,
        '{"name": "f", "arguments": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}",
        '{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}",
        '{"name": "f", "arguments": {"a": -' + "9" * 5000 + "}}\n" + '{"name": "g", "arguments": {}}',
        '{"name": "\ud800", "arguments": {"\x00": 1}}',
        '{"name": "' + "\\" * 100_001,
        '"name": "' * 20_000,
        '{"name": "f", "arguments": [\n' * 500,
        "\nCall: " * 20_000,
        "\nNext: Caller" * 20_000,
    ],
    ids=lambda text: repr(text[:32]),
)
def test_reading_never_raises_on_extremes(text: str) -> None:
    for calls in (parse_calls(text), parse_single("Call: " + text).tool_calls):
        assert calls
        assert caller_text(calls) == text
    parse_planner(text)
    parse_single(text)


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("Next: Caller", Decision.CALL),
        ("done\nNext: Summarizer ", Decision.FINISH),
        ("no\nNext: Give up", Decision.GIVE_UP),
        ("Next: Caller\nor not", None),
        ("I say Next: Caller", None),
        ("", None),
    ],
)
def test_only_a_last_line_of_its_own_decides(text: str, decision: Decision | None) -> None:
    assert parse_planner(text)[1] == decision


# ---- text from outside stays text -----------------------------------------------------------------------------------


@every_tokenizer
@given(text=texts)
def test_no_text_becomes_a_special_token(sample: Sample, text: str) -> None:
    renderer = renderer_of(sample)
    ids = renderer.encode(text)
    assert special_ids(sample).isdisjoint(ids)
    assert sample.normal(renderer.decode(ids)) == sample.normal(text)


@given(voices=either_voice, trajectory=trajectories())
def test_nobody_speaks_as_somebody_else(voices: Voices, trajectory: Trajectory) -> None:
    for sample in samples():
        renderer = renderer_of(sample, voices)
        transcript = renderer.render(trajectory)
        for segment in transcript.segments:
            span = transcript.ids[segment.span_start : segment.span_stop]
            assert special_ids(sample).isdisjoint(span[:-1]), sample.name
        assert transcript.ids.count(renderer.markers.end) == len(transcript.segments)


@given(text=texts)
def test_markers_that_the_tokenizer_does_not_call_special_are_kept_out_too(text: str) -> None:
    tokenizer = _plain_chatml
    markers = set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    renderer = Renderer(tokenizer)
    ids = renderer.encode(text)
    assert markers.isdisjoint(ids)


_plain_chatml = chatml(markers_are_special=False)


@given(voices=either_voice, text=ragged)
def test_half_a_surrogate_pair_renders(voices: Voices, text: str) -> None:
    calls = (ToolCall("a", text, text), ToolCall("b", text, text, malformed=True))
    turns = (AssistantMessage(text, calls), ToolMessage("a", text), AssistantMessage(content=text))
    schema = Tool(json.dumps({"name": "f", "description": text}, ensure_ascii=False))
    trajectory = Trajectory((schema,), (SystemMessage(text), UserMessage(text), *turns))
    for sample in samples():
        transcript = renderer_of(sample, voices).render(trajectory)
        for segment in transcript.segments:
            span = transcript.ids[segment.span_start : segment.span_stop]
            assert special_ids(sample).isdisjoint(span[:-1]), sample.name


@given(text=texts)
def test_a_character_out_of_vocabulary_does_not_become_a_special_token_either(text: str) -> None:
    ids = Renderer(_letters_only).encode(text)
    assert set(_letters_only.all_special_ids).isdisjoint(ids)


_letters_only = letters_only()


def test_text_is_whole_whatever_the_tokenizer_was_used_for_before() -> None:
    tokenizer = nano()
    renderer = Renderer(tokenizer)
    before = renderer.encode("one two three four five six")
    tokenizer(["one two three four", "one"], truncation=True, max_length=2, padding=True)
    assert renderer.encode("one two three four five six") == before
    tokenizer(["one", "two"], padding="max_length", max_length=50)
    assert renderer.encode("one two three four five six") == before
    tokenizer(["one", "two"], truncation=True, padding="max_length", max_length=2)
    assert find_markers(tokenizer) == renderer.markers


# ---- observations ---------------------------------------------------------------------------------------------------


@every_tokenizer
@given(text=texts | st.text(_letters, max_size=300), budget=st.integers(0, 90))
def test_an_observation_keeps_to_its_budget(sample: Sample, text: str, budget: int) -> None:
    renderer = Renderer(sample.tokenizer, observation_tokens=budget)
    ids = tuple(renderer.encode(text))
    *kept, end = renderer.observation(text).span
    assert end == renderer.markers.end
    assert len(kept) <= budget
    if len(ids) <= budget:
        assert tuple(kept) == ids


@every_tokenizer
@given(words=st.integers(100, 200), budget=st.integers(60, 99))
def test_a_cut_observation_keeps_head_and_tail_and_says_how_much_is_missing(
    sample: Sample, words: int, budget: int
) -> None:
    renderer = Renderer(sample.tokenizer, observation_tokens=budget)
    ids = renderer.encode("".join(f"{number}," for number in range(words)))
    kept = list(renderer.observation("".join(f"{number}," for number in range(words))).span[:-1])
    match = re.fullmatch(r"0,1,.*\n\[\.\.\. (\d+) tokens cut \.\.\.\]\n.*,", renderer.decode(kept), re.DOTALL)
    assert match
    mark = renderer.encode(f"\n[... {match[1]} tokens cut ...]\n")
    at = next(at for at in range(len(kept)) if kept[at : at + len(mark)] == mark)
    head, tail = kept[:at], kept[at + len(mark) :]
    assert head == ids[: len(head)]
    assert tail == ids[-len(tail) :]
    assert len(head) >= len(tail) > 0
    assert int(match[1]) == len(ids) - len(head) - len(tail)


@every_voice
@given(text=texts.map(lambda text: text * 3), budget=st.integers(0, 60))
def test_an_observation_is_the_same_in_training_and_at_run_time(voices: Voices, text: str, budget: int) -> None:
    renderer = Renderer(samples()[0].tokenizer, voices, budget)
    turn = AssistantMessage("r", (ToolCall("call_0", "f", "{}"),))
    trained = renderer.render(Trajectory((), (turn, ToolMessage("call_0", text))))
    running = renderer.render(Trajectory((), (turn,)))
    running.append(renderer.observation(text), 1)
    assert running == trained


# ---- generated ids --------------------------------------------------------------------------------------------------


@every_tokenizer
@given(data=st.data())
def test_generated_ids_are_kept(sample: Sample, data: st.DataObject) -> None:
    renderer = renderer_of(sample)
    end = renderer.markers.end
    ids = data.draw(st.lists(st.integers(0, len(sample.tokenizer) - 1).filter(lambda i: i != end), max_size=8))
    for role in ROLES:
        cut, ended = renderer.written(role, ids), renderer.written(role, [*ids, end])
        assert cut == ended
        assert cut.span == (*ids, end)
        assert cut.header == renderer.header(role)
        assert not cut.trained


@given(trajectory=trajectories())
def test_a_transcript_grown_at_run_time_is_the_rendered_one(trajectory: Trajectory) -> None:
    for sample in samples():
        check_growing(renderer_of(sample), trajectory)


def check_growing(renderer: Renderer, trajectory: Trajectory) -> None:
    rendered = renderer.render(trajectory)
    grown = Transcript(list(renderer.markers.start))
    for segment in rendered.segments:
        span = rendered.ids[segment.span_start : segment.span_stop]
        if segment.kind in ROLES:
            grown.append(renderer.written(segment.kind, span), segment.message)
        elif segment.message >= 0 and isinstance(trajectory.messages[segment.message], UserMessage | ToolMessage):
            for piece in renderer.message(trajectory.messages[segment.message]):
                grown.append(piece, segment.message)
        else:
            grown = renderer.render(Trajectory(trajectory.tools, trajectory.messages[: segment.message + 1]))
    assert grown.ids == rendered.ids


# ---- identity -------------------------------------------------------------------------------------------------------


def test_the_fingerprint_names_tokenizer_voices_and_budget() -> None:
    other_start = llama3()
    other_start.bos_token = "<|end_of_text|>"
    renderers = [
        Renderer(nano()),
        Renderer(nano(vocab_size=399)),
        Renderer(nano(normalizers.NFC())),  # the same ids for the markers
        Renderer(nano(), "single"),
        Renderer(nano(), observation_tokens=512),
        Renderer(chatml()),
        Renderer(llama3()),
        Renderer(other_start),
    ]
    assert len({renderer.fingerprint for renderer in renderers}) == len(renderers)
    assert re.fullmatch("[0-9a-f]{16}", renderers[0].fingerprint)


def test_the_fingerprint_stays_while_the_tokenizer_is_used() -> None:
    tokenizer = nano()
    renderer = Renderer(tokenizer)
    before = renderer.fingerprint
    renderer.render(Trajectory((), (UserMessage("hello"),)))
    tokenizer(["one two three", "one"], truncation=True, max_length=2, padding=True)
    assert renderer.fingerprint == before
    tokenizer("one")
    assert Renderer(tokenizer).fingerprint == before
    assert Renderer(nano()).fingerprint == before


@every_tokenizer
def test_the_fingerprint_survives_the_disk(sample: Sample, tmp_path) -> None:
    sample.tokenizer.save_pretrained(tmp_path)
    before = Renderer(sample.tokenizer)
    for loader in (PreTrainedTokenizerFast, AutoTokenizer):
        after = Renderer(loader.from_pretrained(tmp_path))
        assert after.fingerprint == before.fingerprint
        assert after.markers == before.markers


# ---- markers --------------------------------------------------------------------------------------------------------


@every_tokenizer
def test_the_chat_format_is_recognised(sample: Sample) -> None:
    markers = find_markers(sample.tokenizer)
    assert markers.style == sample.style
    assert len(set(markers.headers.values())) == len(KINDS)
    assert all(markers.end not in header for header in markers.headers.values())


def test_a_header_spells_the_tokenizers_own_format() -> None:
    def spelled(sample: Sample) -> str:
        renderer = Renderer(sample.tokenizer)
        return sample.tokenizer.decode(renderer.render(Trajectory((), (UserMessage("hi"),))).ids)

    assert {sample.name: spelled(sample) for sample in samples()} == {
        "nano": "<|user|>hi<|end|>",
        "chatml": "<|im_start|>user\nhi<|im_end|>\n",
        "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
        "gemma": "<bos><start_of_turn>user\nhi<end_of_turn>\n",
        "unigram": "<|user|>hi<|end|>",
        "nfkc": "<|im_start|>user\nhi<|im_end|>\n",
    }


def test_a_tokenizer_without_markers_is_refused_in_words_and_repaired() -> None:
    tokenizer = without_markers()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|mine|>"]})
    size = len(tokenizer)
    with pytest.raises(UserError, match=r"no chat markers.*add_markers\(tokenizer\).*resize"):
        find_markers(tokenizer)
    assert add_markers(tokenizer) == len(KINDS) + 1 == len(tokenizer) - size
    assert add_markers(tokenizer) == 0
    assert find_markers(tokenizer).style == "nano"
    kept_out = tokenizer.convert_tokens_to_ids(["<|mine|>", "<|endoftext|>", "<|planner|>", NANO_END])
    ids = Renderer(tokenizer).encode("<|mine|><|endoftext|><|planner|><|end|>")
    assert set(kept_out).isdisjoint(ids)
