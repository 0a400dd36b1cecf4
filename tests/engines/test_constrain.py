"""Spans held to what their voice may write: whatever the model is, its calls can be made and its decisions be read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from alpha_umi.engines import Generation, Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.constrain import Constraint, Guide
from alpha_umi.engines.decoding import best_width
from alpha_umi.engines.grammars import unconstrained
from alpha_umi.engines.local import LocalEngine
from alpha_umi.errors import UserError
from alpha_umi.run_directory import load_renderer
from alpha_umi.toolworld import SPLITS, make_tasks, solve
from alpha_umi.trajectory import AssistantMessage, Decision, Tool
from alpha_umi.transcript import (
    Renderer,
    Voice,
    caller_text,
    parse_calls,
    parse_planner,
    parse_single,
    planner_text,
    single_text,
)
from alpha_umi.validation import check_call
from tests.models import random_model
from tests.tokenizers import Sample, letters_only, nano, samples

VOICES: tuple[Voice, ...] = ("planner", "caller", "summarizer", "assistant")
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool.of("get_weather", "", CITY)
TIME = Tool.of("get_time", "", {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}})


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """The one that is shipped: a real vocabulary."""
    return shared()[0]


@pytest.fixture(scope="module")
def constraint() -> Constraint:
    return shared()[1]


@pytest.fixture(scope="module")
def model(renderer: Renderer) -> PreTrainedModel:
    return random_model(renderer)


def engine_of(model: PreTrainedModel, renderer: Renderer, **given: Any) -> LocalEngine:
    return LocalEngine(dict.fromkeys(VOICES, model), renderer, **given)


def ask(voice: Voice, tools: Sequence[Tool], session: int = 0, most: int | None = None) -> Request:
    prompt = [3 + session % 200, 5, 7, 11]
    return Request(session, voice, prompt, most, Conversation(tools, ()))


@cache
def shared() -> tuple[Renderer, Constraint]:
    """For hypothesis, which takes no fixtures."""
    renderer = load_renderer(None, 256)
    return renderer, Constraint(renderer)


@cache
def closing() -> np.ndarray:
    """Tokens of the shipped tokenizer that end a string, a value or the span."""
    renderer, _ = shared()
    tokens = range(len(renderer.tokenizer))
    return np.array([t for t in tokens if t == renderer.markers.end or renderer.show([t])[:1] in ('"', "}", "]")])


def drawn(guide: Guide, renderer: Renderer, seed: int, longest: int = 400) -> str | None:
    """A span drawn from what may be written, every legal token as likely as any other that also ends something."""
    chance = random.Random(seed)
    end = renderer.markers.end
    ids = guide.forced()
    while ids[-1:] != [end]:
        legal = np.flatnonzero(np.unpackbits(guide.allowed().view(np.uint8), bitorder="little"))
        assert legal.size
        ends = np.intersect1d(legal, closing())
        token = int(chance.choice(ends if ends.size and chance.random() < 0.6 else legal))
        assert guide.take(token)
        ids.append(token)
        ids += guide.forced() if token != end else []
        if len(ids) > longest:
            return None
    return renderer.decode(ids)


def follow(guide: Guide, ids: Sequence[int]) -> int:
    """How many of these tokens can be written, those that are forced included."""
    done = 0
    while done < len(ids):
        forced = guide.forced()
        if forced:
            if forced != list(ids[done : done + len(forced)]):
                return done
            done += len(forced)
        elif guide.take(ids[done]):
            done += 1
        else:
            return done
    return done


# ---- calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_finished_caller_span_of_a_random_model_can_be_called_in_all_splits(
    renderer: Renderer, model: PreTrainedModel, temperature: float
) -> None:
    engine = engine_of(model, renderer)
    tasks = [task for split in SPLITS for task in make_tasks(split, 8)]
    requests = [ask("caller", task.tools, number, 160) for number, task in enumerate(tasks)]
    made = engine.generate(requests, Sampling(temperature=temperature, seed=3))
    finished = 0
    for task, generation in zip(tasks, made, strict=True):
        text = renderer.decode(generation.ids)
        assert text.startswith('{"name": "')
        assert generation.forced_tokens > 0
        for call in parse_calls(text) if generation.finished else ():
            check_call(call, task.tools)
            finished += 1
    assert finished >= 5


def test_the_oracles_calls_may_be_written_and_forced_tokens_are_the_ones_they_consist_of(
    renderer: Renderer, constraint: Constraint
) -> None:
    spoken = 0
    for split in SPLITS:
        for task in make_tasks(split, 4):
            for message in solve(task).messages:
                if not isinstance(message, AssistantMessage) or message.decision is None:
                    continue
                spans: list[tuple[Voice, str]] = [
                    ("planner", planner_text(message)),
                    ("assistant", single_text(message)),
                ]
                if message.tool_calls:
                    spans.append(("caller", caller_text(message.tool_calls)))
                for voice, text in spans:
                    guide = constraint.guide(ask(voice, task.tools))
                    assert guide is not None
                    ids = [*renderer.encode(text), renderer.markers.end]
                    assert follow(guide, ids) == len(ids), text
                    spoken += 1
    assert spoken > 100


NASTY: dict[str, dict[str, Any]] = {
    "nested": {"p": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
    "array": {"p": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3}},
    "any of": {"p": {"anyOf": [{"type": "null"}, {"type": "boolean"}, {"enum": ["x", 3, {"a": [1]}]}]}},
    "one of, disjoint": {"p": {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 3}]}},
    "pattern": {"p": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}},
    "bounds": {"p": {"type": "integer", "minimum": 3, "exclusiveMaximum": 8}, "q": {"type": "number", "minimum": 0.5}},
    "types": {"p": {"type": ["string", "null"]}, "q": {"type": "integer", "multipleOf": 7}},
    "formats": {"p": {"type": "string", "format": "date"}, "q": {"type": "number", "format": "float"}},
    "quotes": {"p": {"const": 'say "hi"\\\n\tthere'}, "é \" ü": {"enum": ["東京", "<|end|>"]}},
    "additional": {"p": {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}},
    "untyped": {"p": {}, "q": True},
    "references": {"p": {"$ref": "#/$defs/tree"}},
}  # fmt: skip
TREE = {"type": "object", "properties": {"l": {"$ref": "#/$defs/tree"}, "v": {"type": "integer"}}, "required": ["v"]}


@pytest.mark.parametrize("case", NASTY)
def test_whatever_is_drawn_from_a_grammar_satisfies_the_schema(
    renderer: Renderer, constraint: Constraint, case: str
) -> None:
    parameters = {"type": "object", "properties": NASTY[case], "required": ["p"], "$defs": {"tree": TREE}}
    tools = (Tool.of(f'tool "{case}" ü', "", parameters), WEATHER)
    assert unconstrained(tools) == {}
    checked = 0
    for seed in range(8):
        guide = constraint.guide(ask("caller", tools))
        assert guide is not None
        text = drawn(guide, renderer, seed)
        for call in parse_calls(text) if text is not None else ():
            check_call(call, tools)
            checked += 1
    assert checked > 3


NUMBERS: dict[str, Any] = {
    "a number": {"type": "number"},
    "a number from": {"type": "number", "minimum": 0},
    "a number below": {"type": "number", "exclusiveMaximum": 10**9},
    "a multiple": {"type": "number", "multipleOf": 0.5},
    "one of types": {"type": ["number", "null"]},
    "anything": {},
    "any, in words": True,
    "an alternative": {"anyOf": [{"type": "boolean"}, {"type": "number"}]},
    "a defined number": {"$ref": "#/$defs/number"},
}
INFINITE = ["1e999", "-5e88880", "9" * 400 + ".5", "1E+400"]


def nested(value: str, depth: int) -> str:
    return value if depth == 0 else f'{{"a": [{nested(value, depth - 1)}]}}'


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_that_python_reads_as_infinite_cannot_be_written_and_others_can(
    renderer: Renderer, constraint: Constraint, case: str
) -> None:
    properties = {"p": NUMBERS[case]}
    tool = Tool.of("f", "", {"type": "object", "properties": properties, "$defs": {"number": {"type": "number"}}})
    assert unconstrained([tool]) == {}
    assert all(writable(constraint, renderer, tool, value) for value in ("0", "7.5", "12"))
    assert not any(writable(constraint, renderer, tool, value) for value in INFINITE)


@pytest.mark.parametrize(
    "schema", [{"type": "object"}, {"type": "array"}, {}, {"type": "object", "additionalProperties": True}]
)
def test_nor_can_it_be_written_anywhere_inside_what_is_open(
    renderer: Renderer, constraint: Constraint, schema: dict[str, Any]
) -> None:
    tool = Tool.of("f", "", {"type": "object", "properties": {"p": schema}})
    for depth in (1, 2):
        values = {value: nested(value, depth) for value in ("-7.5", *INFINITE)}
        if schema.get("type") == "array":
            values = {value: f"[{text}]" for value, text in values.items()}
        found = {value: writable(constraint, renderer, tool, text) for value, text in values.items()}
        assert found == {value: value == "-7.5" for value in values}


def test_nor_where_a_schema_cannot_be_compiled(renderer: Renderer, constraint: Constraint) -> None:
    tool = Tool.of("f", "", {"type": "object", "properties": {"p": {"type": "array", "uniqueItems": True}}})
    assert writable(constraint, renderer, tool, "[1, 2.5]")
    assert not writable(constraint, renderer, tool, "[1e999]")


def writable(constraint: Constraint, renderer: Renderer, tool: Tool, value: str) -> bool:
    """Whether a call with this value of ``p`` can be written whole."""
    guide = constraint.guide(ask("caller", [tool]))
    assert guide is not None
    ids = [*renderer.encode(f'{{"name": "f", "arguments": {{"p": {value}}}}}'), renderer.markers.end]
    return follow(guide, ids) == len(ids)


def test_several_calls_a_turn_stand_a_line_each(renderer: Renderer, constraint: Constraint) -> None:
    text = '{"name": "get_time", "arguments": {}}\n{"name": "get_weather", "arguments": {"city": "Paris"}}'
    guide = constraint.guide(ask("caller", (WEATHER, TIME)))
    assert guide is not None
    ids = [*renderer.encode(text), renderer.markers.end]
    assert follow(guide, ids) == len(ids)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "get_wind", "arguments": {}}',
        '{"name": "get_weather", "arguments": {}}',
        '{"name": "get_weather", "arguments": {"town": "Paris"}}',
        '{"name": "get_weather", "arguments": {"city": 3}}',
        '{"name": "get_weather", "arguments": {"city": "Paris", "country": "France"}}',
        '{"name": "get_weather","arguments":{"city":"Paris"}}',
        '{"name": "get_time", "arguments": {"zone": "CEST"}}',
        '{"name": "get_time", "arguments": {}} ',
        '{"name": "get_time", "arguments": {}}\n\n{"name": "get_time", "arguments": {}}',
        'I call {"name": "get_time", "arguments": {}}',
        "",
    ],
)
def test_what_is_no_call_of_a_given_tool_cannot_be_written(
    renderer: Renderer, constraint: Constraint, text: str
) -> None:
    guide = constraint.guide(ask("caller", (WEATHER, TIME)))
    assert guide is not None
    ids = [*renderer.encode(text), renderer.markers.end]
    assert follow(guide, ids) < len(ids)


def test_a_declared_name_has_one_spelling(renderer: Renderer, constraint: Constraint) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}
    for arguments in ('{"\\u0061": "x"}', '{"a": "x"}', '{"a": 1, "a": 2}'):
        guide = constraint.guide(ask("caller", (Tool.of("t", "", parameters),)))
        assert guide is not None
        ids = renderer.encode(f'{{"name": "t", "arguments": {arguments}}}')
        assert follow(guide, ids) < len(ids)


def test_of_two_tools_with_one_name_the_first_is_the_one_that_is_held_to(
    renderer: Renderer, constraint: Constraint
) -> None:
    tools = (Tool.of("t", "", CITY), Tool.of("t", "", {"type": "object", "properties": {"n": {"type": "integer"}}}))
    guide = constraint.guide(ask("caller", tools))
    assert guide is not None
    assert renderer.decode(guide.forced()).startswith('{"name": "t", "arguments": {"city')


# ---- decisions and text ---------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.sampled_from(list(Decision)))
def test_a_planner_may_write_any_text_and_ends_with_its_first_decision(text: str, decision: Decision) -> None:
    renderer, constraint = shared()
    guide = constraint.guide(ask("planner", (WEATHER,)))
    assert guide is not None
    ids = [*renderer.encode(f"{text}\nNext: {decision.value}"), renderer.markers.end]
    assert follow(guide, ids) == len(ids)
    assert parse_planner(renderer.decode(ids))[1] is decision
    assert not guide.take(ids[0])


@pytest.mark.parametrize(
    "text", ["I know.", "I know.\nNext: Finish", "I know. Next: Caller", "Next: Caller please", ""]
)
def test_a_planner_span_has_no_end_without_a_decision(renderer: Renderer, constraint: Constraint, text: str) -> None:
    guide = constraint.guide(ask("planner", (WEATHER,)))
    assert guide is not None
    ids = [*renderer.encode(text), renderer.markers.end]
    assert follow(guide, ids) < len(ids)


@pytest.mark.parametrize(
    ("voice", "text"), [("planner", "So.\nNext: Caller"), ("assistant", 'So.\nCall: {"name": "x", "arguments": {}}')]
)
def test_where_there_are_no_tools_none_can_be_called(
    renderer: Renderer, constraint: Constraint, voice: Voice, text: str
) -> None:
    refusal = "So.\nNext: Give up" if voice == "planner" else "So.\nGive up: Call: nobody"
    for written, whole in ((text, False), (refusal, True)):
        guide = constraint.guide(ask(voice, ()))
        assert guide is not None
        ids = [*renderer.encode(written), renderer.markers.end]
        assert (follow(guide, ids) == len(ids)) is whole


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('I see.\nCall: {"name": "get_weather", "arguments": {"city": "Paris"}}', True),
        ("I see.\nAnswer: It rains.\nCall: me.", True),
        ("Give up: no tool\nfor this", True),
        ("I see.\nCall: get_weather", False),
        ("I see.", False),
    ],
)
def test_the_one_voice_calls_answers_or_gives_up(
    renderer: Renderer, constraint: Constraint, text: str, whole: bool
) -> None:
    guide = constraint.guide(ask("assistant", (WEATHER,)))
    assert guide is not None
    ids = [*renderer.encode(text), renderer.markers.end]
    assert (follow(guide, ids) == len(ids)) is whole
    assert not whole or parse_single(text).decision is not None


@pytest.mark.parametrize("voice", VOICES)
def test_no_special_token_but_the_end_token_gets_into_a_span(
    renderer: Renderer, model: PreTrainedModel, voice: Voice
) -> None:
    special = {header[0] for header in renderer.markers.headers.values()} | set(renderer.tokenizer.all_special_ids)
    engine = engine_of(model, renderer)
    requests = [ask(voice, (WEATHER,), session, 40) for session in range(30)]
    # every token about as likely as any other: without a guide, a special one would come soon
    for generation in engine.generate(requests, Sampling(temperature=100.0)):
        text = generation.ids[:-1] if generation.finished else generation.ids
        assert special.isdisjoint(text)


@pytest.mark.parametrize("sample", samples(), ids=str)
def test_every_kind_of_tokenizer_is_held_to_calls_and_ends_with_its_own_end_token(sample: Sample) -> None:
    renderer = Renderer(sample.tokenizer)
    end = sample.tokenizer.convert_ids_to_tokens(renderer.markers.end)
    tools = (Tool.of("say", "", {"type": "object", "properties": {"x": {"const": f"a{end}b"}}, "required": ["x"]}),)
    guide = Constraint(renderer).guide(ask("caller", tools))
    assert guide is not None
    ids = guide.forced()
    assert renderer.markers.end not in ids
    assert guide.take(renderer.markers.end)
    (call,) = parse_calls(renderer.decode(ids))
    assert check_call(call, tools) == {"x": f"a{end}b"}
    assert ids == renderer.encode(renderer.decode(ids))


def test_a_tokenizer_whose_tokens_cannot_be_read_is_refused_unless_nothing_is_to_be_held() -> None:
    renderer = Renderer(letters_only())
    model = random_model(renderer)
    with pytest.raises(UserError, match="--no-constrain"):
        engine_of(model, renderer)
    (made,) = engine_of(model, renderer, constrain=False).generate([ask("caller", (WEATHER,))], Sampling())
    assert made.ids


# ---- what can't be compiled -----------------------------------------------------------------------------------------


FREE = {
    "unique items": ({"p": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    "not": ({"p": {"not": {"type": "string"}}}, "not"),
    "look-around": ({"p": {"type": "string", "pattern": "^(?=a)"}}, "look-around"),
    "overlap": ({"p": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
    "no such type": ({"p": {"type": "dict"}}, "dict"),
    "elsewhere": ({"p": {"$ref": "http://127.0.0.1:9/x"}}, "127.0.0.1"),
    "large factor": ({"p": {"type": "integer", "multipleOf": 999983}}, "multipleOf"),
    "long": ({f"p{n}": {"type": "string"} for n in range(4000)}, "65536"),
}


@pytest.mark.parametrize("case", FREE)
def test_a_schema_that_cannot_be_compiled_leaves_its_tool_any_object_and_says_why(
    renderer: Renderer, constraint: Constraint, case: str
) -> None:
    properties, word = FREE[case]
    tools = (Tool.of("free", "", {"type": "object", "properties": properties}), WEATHER)
    (name, reason), = unconstrained(tools).items()  # fmt: skip
    assert name == "free"
    assert word in reason
    assert "\n" not in reason
    for text, whole in (
        ('{"name": "free", "arguments": {"whatever": [1, {"a": null}]}}', True),
        ('{"name": "freed", "arguments": {}}', False),
        ('{"name": "free", "arguments": 3}', False),
        ('{"name": "get_weather", "arguments": {"whatever": 1}}', False),
    ):
        guide = constraint.guide(ask("caller", tools))
        assert guide is not None
        ids = [*renderer.encode(text), renderer.markers.end]
        assert (follow(guide, ids) == len(ids)) is whole, text


def test_a_tool_whose_name_nobody_can_write_leaves_the_others_as_they_are(
    renderer: Renderer, constraint: Constraint
) -> None:
    broken = Tool('{"name": "\\ud800", "description": "", "parameters": {"type": "object", "properties": {}}}')
    assert list(unconstrained((broken, WEATHER))) == [broken.name]
    guide = constraint.guide(ask("caller", (broken, WEATHER)))
    assert guide is not None
    assert renderer.decode(guide.forced()).startswith('{"name": "get_weather", "arguments": {"city')


def test_a_list_too_large_for_one_grammar_is_held_to_its_names(renderer: Renderer) -> None:
    parameters = {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": n + 1} for n in range(40)}}
    tools = tuple(Tool.of(f"tool_{n}", "", parameters) for n in range(60))
    reasons = unconstrained(tools)
    assert set(reasons) == {tool.name for tool in tools}
    assert all(reason.startswith("too many tools at once") for reason in reasons.values())
    guide = Constraint(renderer).guide(ask("caller", tools))
    assert guide is not None
    assert guide.forced()
    assert follow(guide, renderer.encode("tool_7x")) < len(renderer.encode("tool_7x"))


@pytest.mark.parametrize(
    "parameters",
    [
        {"$ref": "#"},
        {"properties": {"p": {"type": "string", "pattern": "(.*a.{20}|.*b.{21}|.*c.{22})"}}, "required": ["p"]},
        {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {}}} for j in range(4)]} for i in range(4)]},
    ],
    ids=["endless", "many states", "many branches"],
)
def test_a_span_whose_grammar_has_no_way_on_or_costs_too_much_goes_on_without_it(
    renderer: Renderer, model: PreTrainedModel, parameters: dict[str, Any]
) -> None:
    tools = (Tool.of("t", "", parameters),)
    engine = engine_of(model, renderer)
    for generation in engine.generate([ask("caller", tools, n, 60) for n in range(3)], Sampling(temperature=1.0)):
        assert generation.finished or len(generation.ids) == 60


def test_however_many_schemas_come_they_leave_no_more_grammars_than_the_bound(renderer: Renderer) -> None:
    constraint = Constraint(renderer, cached=8)
    for number in range(300):
        tool = Tool.of(f"t{number}", "", {"type": "object", "properties": {f"p{number}": {"type": "string"}}})
        guide = constraint.guide(ask("caller", (tool,)))
        assert guide is not None
        assert renderer.decode(guide.forced()).startswith(f'{{"name": "t{number}", ')
        assert len(constraint) <= 8


# ---- the engine -----------------------------------------------------------------------------------------------------


def spans(made: Sequence[Generation]) -> list[tuple[int, ...]]:
    return [generation.ids for generation in made]


MIXED = [
    ask("caller", (WEATHER, TIME), 0), ask("planner", (WEATHER,), 1), Request(2, "caller", [9, 8, 7]),
    ask("summarizer", (), 3), ask("assistant", (TIME,), 4), Request(5, "planner", [4]), ask("caller", (TIME,), 6),
]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_span_does_not_depend_on_the_rest_of_the_batch_whether_held_or_not(
    renderer: Renderer, model: PreTrainedModel, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, seed=5, max_new_tokens=30)
    alone = [engine_of(model, renderer).generate([request], sampling)[0].ids for request in MIXED]
    for order in (range(7), range(6, -1, -1), [0, 2], [5, 3, 1, 0]):
        made = engine_of(model, renderer).generate([MIXED[n] for n in order], sampling)
        assert spans(made) == [alone[n] for n in order]
    plain = engine_of(model, renderer, constrain=False).generate(MIXED, sampling)
    assert [plain[n].ids for n in (2, 5)] == [alone[n] for n in (2, 5)]
    assert plain[0].ids != alone[0]
    assert not any(generation.forced_tokens for generation in plain)


def test_the_number_of_tokens_a_forward_takes_changes_nothing(renderer: Renderer, model: PreTrainedModel) -> None:
    requests = [ask("caller", task.tools, number, 50) for number, task in enumerate(make_tasks("I1-Inst", 9))]
    made = []
    for enough in (0, 24, 10_000):
        engine = engine_of(model, renderer)
        engine._runners["caller"]._enough = enough
        made.append(spans(engine.generate(requests, Sampling())))
    assert made[0] == made[1] == made[2]


def test_forced_tokens_run_with_the_prompt_and_count_for_the_length(renderer: Renderer, model: PreTrainedModel) -> None:
    guide = Constraint(renderer).guide(ask("caller", (WEATHER,)))
    assert guide is not None
    forced = guide.forced()
    assert len(forced) > 8
    for most in range(1, len(forced) + 3):
        (made,) = engine_of(model, renderer).generate([ask("caller", (WEATHER,), 0, most)], Sampling())
        assert len(made.ids) == most
        assert not made.finished
        assert made.ids[:most] == (*forced, *made.ids[len(forced) :])[:most]
        assert made.forced_tokens == min(most, len(forced))


def test_turns_after_a_held_span_equal_a_computation_from_nothing(renderer: Renderer, model: PreTrainedModel) -> None:
    engine = engine_of(model, renderer)
    first = [ask("caller", (WEATHER, TIME), session, 5 + 7 * session) for session in range(5)]
    asked = []
    for request, made in zip(first, engine.generate(first, Sampling(temperature=1.0)), strict=True):
        ids = [*request.ids, *renderer.header("caller"), *made.ids, 17, 18]
        asked.append(Request(request.session, "planner", ids, 12))
    expected = engine_of(model, renderer, constrain=False).generate(asked, Sampling())
    again = engine.generate(asked, Sampling())
    assert spans(again) == spans(expected)
    assert all(generation.cached_tokens > 4 for generation in again)


def test_tokens_have_the_probabilities_they_have_among_those_allowed(
    renderer: Renderer, model: PreTrainedModel
) -> None:
    tools = (WEATHER, TIME, Tool.of("add", "", {"type": "object", "properties": {}}))
    prefix = renderer.encode('{"name": "')
    requests = [Request(n, "caller", [3, 5, 7], len(prefix) + 1, Conversation(tools, ())) for n in range(2000)]
    made = engine_of(model, renderer, cache_bytes=1).generate(requests, Sampling(temperature=1.0))
    with torch.no_grad():
        logits = model(torch.tensor([[3, 5, 7, *renderer.header("caller"), *prefix]])).logits[0, -1]
    constraint = Constraint(renderer)
    guide = constraint.guide(requests[0])
    assert guide is not None
    assert guide.forced() == prefix
    bits = np.unpackbits(guide.allowed().view(np.uint8), bitorder="little")[: len(logits)]
    wanted = torch.softmax(logits.masked_fill(torch.from_numpy(bits) == 0, -torch.inf), 0)
    got = torch.bincount(torch.tensor([generation.ids[-1] for generation in made]), minlength=len(wanted)) / len(made)
    assert (got - wanted).abs().sum() < 0.1
    assert (got[wanted == 0] == 0).all()


def test_a_vocabulary_padded_beyond_the_tokenizers_is_never_written(model: PreTrainedModel) -> None:
    renderer = Renderer(nano())
    wide = random_model(renderer)
    wide.resize_token_embeddings(len(renderer.tokenizer) + 100)
    engine = engine_of(wide, renderer)
    made = engine.generate(
        [ask(voice, (WEATHER,), n, 30) for n, voice in enumerate(VOICES)], Sampling(temperature=50.0)
    )
    assert max(max(generation.ids) for generation in made) < len(renderer.tokenizer)


def test_the_width_that_computes_most_for_its_cost_is_taken() -> None:
    assert best_width([5], 24) == 5
    assert best_width([1, 1, 1, 2], 24) == 2
    assert best_width([9, 9, 8, 0], 24) in (8, 9)
    assert best_width([1] * 63 + [20], 24) == 1


def test_a_request_without_a_conversation_is_not_held(constraint: Constraint) -> None:
    assert constraint.guide(Request(0, "caller", [1])) is None
