"""A stream put together is the response that it would have been."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.proxy.sse import StreamError, assemble

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
CALLS = st.lists(st.tuples(TEXT, TEXT), max_size=3)
MESSAGES = st.fixed_dictionaries({}, optional={"content": TEXT, "reasoning_content": TEXT, "refusal": TEXT})
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "tool_calls", "function", "name", "arguments", "id", "index", "content",
                         "function_call", "finish_reason", "usage", "error", "type"]), inner, max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


def sent(*chunks: Any, done: bool = True, line: str = "\n") -> bytes:
    texts = [f"data: {json.dumps(chunk)}{line}{line}" for chunk in chunks]
    return "".join([*texts, f"data: [DONE]{line}{line}" if done else ""]).encode()


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def call(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    given_index = {} if index is None else {"index": index}
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [given_index | ({"id": call_id} if call_id else {}) | {"function": function}]}


def message(data: bytes, choice: int = 0) -> dict[str, Any]:
    return assemble(data).response["choices"][choice]["message"]


def calls(data: bytes) -> list[tuple[Any, ...]]:
    found = message(data)["tool_calls"]
    return [(one.get("id"), one["function"]["name"], one["function"]["arguments"]) for one in found]


@given(st.lists(st.tuples(MESSAGES, CALLS), min_size=1, max_size=3), st.data(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_whatever_way_messages_are_cut_into_deltas(
    wanted: list[tuple[dict[str, str], list[tuple[str, str]]]], data: st.DataObject, line: str
):
    deltas: list[list[dict[str, Any]]] = []
    for number, (fields, called) in enumerate(wanted):
        own = [chunk({"role": "assistant"}, index=number)]
        for key, text in fields.items():
            cut = data.draw(st.integers(0, len(text)))
            own += [chunk({key: part}, index=number) for part in (text[:cut], text[cut:])]
        for place, (name, arguments) in enumerate(called):
            cut = data.draw(st.integers(0, len(arguments)))
            own.append(chunk(call(place, f"id{place}", name, arguments[:cut]), index=number))
            own.append(chunk(call(place, None, None, arguments[cut:]), index=number))
        deltas.append([*own, chunk({}, "stop", index=number)])
    mixed: list[dict[str, Any]] = []  # the choices' deltas, one beside the other
    while any(deltas):
        mixed.append(data.draw(st.sampled_from([own for own in deltas if own])).pop(0))
    usage = {"choices": [], "usage": {"total_tokens": 7}}
    stream = assemble(b": keep-alive\n\n" + sent(*mixed, usage, line=line))
    assert stream.problem is None
    assert stream.response["usage"] == {"total_tokens": 7}
    assert (stream.response["model"], stream.response["object"]) == ("m", "chat.completion")
    for number, (fields, called) in enumerate(wanted):
        choice = stream.response["choices"][number]
        expected: dict[str, Any] = {"role": "assistant", "content": None} | fields
        if called:
            expected["tool_calls"] = [
                {"id": f"id{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for place, (name, arguments) in enumerate(called)
            ]
        assert choice == {"index": number, "finish_reason": "stop", "message": expected}


@given(st.lists(ANY_JSON, max_size=5), st.binary(max_size=40))
def test_nothing_that_comes_makes_it_fail_in_another_way(values: list[Any], junk: bytes):
    for data in (sent(*values), sent(*[chunk(one) for one in values if isinstance(one, dict)]), junk):
        with contextlib.suppress(StreamError):
            json.dumps(assemble(data).response)


def test_servers_that_number_calls_in_their_own_way():
    one, two = ("a", "f", '{"x": 1}'), ("b", "f", '{"x": 2}')
    same_index = sent(chunk(call(0, *one)), chunk(call(0, *two)))
    no_index = sent(chunk(call(None, "a", "f", '{"x"')), chunk(call(None, None, None, ": 1}")), chunk(call(None, *two)))
    repeating = sent(chunk(call(0, "a", "f", '{"x"')), chunk(call(0, "a", "f", ": 1}")), chunk(call(1, *two)))
    for data in (same_index, no_index, repeating):
        assert calls(data) == [one, two]
    as_object = chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]})
    assert calls(sent(as_object)) == [one]
    old = sent(chunk({"function_call": {"name": "f", "arguments": "{"}}), chunk({"function_call": {"arguments": "}"}}))
    assert message(old)["function_call"] == {"name": "f", "arguments": "{}"}


def test_a_stream_that_does_not_end_is_named():
    cut = sent(chunk({"content": "a"}), done=False)
    assert assemble(cut).problem == "the stream was cut"
    assert assemble(sent(chunk({"content": "a"}), chunk({}, "stop"), done=False)).problem is None
    broken = assemble(sent(chunk({"content": "a"}), {"error": {"message": "overloaded"}}, done=False))
    assert broken.problem == "the upstream reported an error in the stream"
    for junk in (b"data: {\n\n", b"data: []\n\n", b"data: " + b"[" * 100_000 + b"\n\n"):
        with pytest.raises(StreamError):
            assemble(junk)
