"""Calls and types in Python's words, and lists of calls in JSON, kept verbatim."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.call_texts import json_items, literal, python_call, read_call, read_tools, type_schema, write_tools


@pytest.mark.parametrize(
    ("text", "items"),
    [("[]", []), (' [1.00, "]", {"a":  [ ]}] ', ["1.00", '"]"', '{"a":  [ ]}']), ("{}", None), ("[", None), ("", None)],
)
def test_the_items_of_a_json_array_keep_their_text(text: str, items: list[str] | None) -> None:
    assert json_items(text) == items


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("Find(q='x', n=3)", "Find", '{"q": "x", "n": 3}'),
        (" shop.find() ", "shop.find", "{}"),
        ("Find(tags=['a', 'b'], deep={'x': None})", "Find", '{"tags": ["a", "b"], "deep": {"x": null}}'),
    ],
)
def test_a_python_call_is_read_without_running_it(text: str, name: str, arguments: str) -> None:
    call = python_call(text, "c")
    assert call is not None and (call.id, call.name, call.arguments) == ("c", name, arguments)


@pytest.mark.parametrize(
    "text", ["", "Find", "Find('x')", "Find(q=x)", "Find(**{})", "Find(q=open('f'))", "Find(q=b'')"]
)
def test_what_is_no_call_with_literal_keywords_is_none(text: str) -> None:
    assert python_call(text, "c") is None


@pytest.mark.parametrize(
    ("text", "value"), [("{'a': (1, True, None)}", {"a": (1, True, None)}), ("{'a': b''}", None), ("a", None)]
)
def test_a_literal_is_one_that_json_can_hold(text: str, value: Any) -> None:
    assert literal(text) == value


def test_a_call_is_json_or_a_python_dictionary() -> None:
    assert read_call('{"arguments": { "a":1}, "name": "f"}', "c").arguments == '{ "a":1}'
    assert read_call("{'name': 'f', 'arguments': {'a': None}}", "c").arguments == '{"a": null}'
    assert read_call("{'name': '', 'arguments': {}}", "c").malformed


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("str", {"type": "string"}),
        ("int, optional", {"type": "integer"}),
        ("List[Dict[str, int]]", {"type": "array", "items": {"type": "object"}}),
        ("list(str)", {"type": "array", "items": {"type": "string"}}),
        ("Optional[float]", {"type": "number"}),
        ("Tuple[int, int]", {"type": "array"}),
        ("Array[string]", {"type": "array", "items": {"type": "string"}}),
        ("Union[int, str]", {}),
        ("colour", {}),
        ("", {}),
    ],
)
def test_a_type_word_becomes_a_json_schema(words: str, schema: dict[str, Any]) -> None:
    assert type_schema(words) == schema


def test_a_tool_list_with_pythons_types_comes_back_as_it_was() -> None:
    given_list = [{"name": "f", "parameters": {"type": "dict", "properties": {"a": {"type": "str"}}}}]
    tools, form = read_tools(given_list, "x")
    assert tools[0].parameters == {"type": "object", "properties": {"a": {"type": "string"}}}
    assert write_tools(tools, "x", form) == given_list
    assert write_tools((), "x", form) == []


@given(st.text(max_size=20) | st.text(alphabet="f()[]{}=,'\"1 :", max_size=20))
def test_no_text_makes_them_raise(text: str) -> None:
    for function in (json_items, literal, type_schema):
        function(text)
    python_call(text, "c")
    assert read_call(text, "c").id == "c"
