"""A function's hints and docstring become a schema, and what the schema promises is what the function gets."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools import writes
from alpha_umi.tools.functions import Function, load_module, public_functions, read_docstring, result_text


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Distance(Enum):
    NEAR = 1.0
    FAR = math.inf


@dataclass
class Point:
    x: int
    title: str = "origin"


class Order(BaseModel):
    points: list[Point]


def book(copy: int, schema: Annotated[int, Field(ge=1)], when: date | None = None, color: Color = Color.RED) -> str:
    """Books a room.

    It may fail.

    Args:
        copy: How many
            copies.
        schema (int, optional): Which one: this.
        when: The day.

    Returns:
        str: A number.
    """
    return f"{copy!r} {schema!r} {when!r} {color!r}"


def called(function: Callable[..., Any], **arguments: Any) -> str:
    return asyncio.run(Function.of(function.__name__, function).call(arguments))


# ---- schemas --------------------------------------------------------------------------------------------------------


def test_a_schema_has_types_defaults_and_what_the_docstring_says() -> None:
    function = Function.of("book", book)
    assert function.description == "Books a room.\n\nIt may fail."
    assert function.parameters == {
        "type": "object",
        "properties": {
            "copy": {"type": "integer", "description": "How many copies."},
            "schema": {"type": "integer", "minimum": 1, "description": "Which one: this."},
            "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "description": "The day."},
            "color": {"$ref": "#/$defs/Color", "default": "red"},
        },
        "required": ["copy", "schema"],
        "$defs": {"Color": {"title": "Color", "enum": ["red", "blue"], "type": "string"}},
    }
    assert (function.writes, function.asynchronous) == (False, False)


def test_a_function_without_anything_takes_nothing() -> None:
    assert Function.of("f", lambda: 0).parameters == {"type": "object", "properties": {}}


def test_a_parameter_without_a_hint_takes_anything() -> None:
    def free(x, *rest, **named):
        return [x, rest, named]

    assert Function.of("free", free).parameters == {"type": "object", "properties": {"x": {}}, "required": ["x"]}
    assert called(free, x={"a": [1]}) == '[{"a": [1]}, [], {}]'


def test_an_infinite_default_is_not_shown_and_an_infinite_choice_is_refused() -> None:
    def near(x: float = math.inf, y: float = 1.5) -> None: ...

    def choice(x: Distance) -> None: ...

    shown = Function.of("near", near).parameters["properties"]
    assert [field.get("default") for field in shown.values()] == [None, 1.5]
    with pytest.raises(UserError, match=r"choice can't be turned into a JSON Schema: .*Infinity is no finite number"):
        Function.of("choice", choice)


def test_a_default_that_json_cannot_hold_is_not_shown() -> None:
    def sentinel(x: int = object()) -> str:  # type: ignore[assignment]
        return type(x).__name__

    assert Function.of("f", sentinel).parameters["properties"] == {"x": {"type": "integer"}}
    assert called(sentinel) == "object"


@pytest.mark.parametrize(
    ("hint", "says"),
    [(ModuleType, "<class 'module'>;"), ("Nowhere", "Nowhere"), (Callable[[], int], "can't be turned")],
)
def test_a_hint_that_json_has_no_form_for_is_refused_by_name(hint: Any, says: str) -> None:
    def odd(x): ...

    odd.__annotations__ = {"x": hint}
    with pytest.raises(UserError, match=r"the type hints of odd can't be turned into a JSON Schema") as caught:
        Function.of("odd", odd)
    assert says in str(caught.value)


def test_a_parameter_without_a_name_is_refused() -> None:
    def first(x: int, /) -> int:
        return x

    with pytest.raises(UserError, match="can't be given by name"):
        Function.of("first", first)


def test_marks_survive_other_decorators() -> None:
    def logged(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @logged
    @writes
    async def save(text: str) -> str:
        """Saves."""
        return text

    function = Function.of("save", functools.cache(save))
    assert (function.writes, function.asynchronous, function.description) == (True, True, "Saves.")
    assert called(save, text="x") == "x"


# ---- docstrings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("docstring", "description", "described"),
    [
        ("", "", {}),
        ("One line.", "One line.", {}),
        ("Does.\n\n:param x: rest style", "Does.\n\n:param x: rest style", {}),
        ("Does.\n\n    Args:\n        x: The x.\n        y (list[int], optional): The y\n            goes on: here.\n\n"
         "        *z: All.\n    Raises:\n        ValueError: If not.\n    ", "Does.",
         {"x": "The x.", "y": "The y goes on: here.", "z": "All."}),
        ("Args:\n    x: a\n\nExample:\n    y: b", "", {"x": "a"}),
        ("Does.\n\nArguments:\n  x:\n    below\n  no entry\n  y : c", "Does.", {"x": "below no entry", "y": "c"}),
    ],
)  # fmt: skip
def test_docstrings_in_googles_style_are_read(docstring: str, description: str, described: dict[str, str]) -> None:
    assert read_docstring(docstring) == (description, described)


@given(st.text(alphabet="Args:\n x(y)*Returns"))
def test_no_docstring_breaks_the_reader(docstring: str) -> None:
    read_docstring(docstring)


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_arguments_become_what_the_hints_ask_for() -> None:
    assert called(book, copy=1, schema=2, when="2026-11-21", color="blue") == (
        "1 2 datetime.date(2026, 11, 21) <Color.BLUE: 'blue'>"
    )

    def shapes(point: Point, order: Order, several: set[int], price: Decimal, kind: Literal["a", "b"] = "a") -> str:
        return f"{point} {order.points[0].x} {sorted(several)} {price!r} {kind}"

    arguments = {"point": {"x": 3}, "order": {"points": [{"x": 4}]}, "several": [2, 1, 2], "price": "1.50"}
    assert called(shapes, **arguments) == "Point(x=3, title='origin') 4 [1, 2] Decimal('1.50') a"


def even(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"copy": 1}, "schema: Field required"),
        ({"copy": "x", "schema": 1}, "copy: Input should be a valid integer"),
        ({"copy": 1, "schema": 0}, "schema: Input should be greater than or equal to 1"),
        ({"copy": 1, "schema": 1, "more": 1}, "more: Extra inputs are not permitted"),
        ({"copy": 1, "schema": 1, "when": "tomorrow"}, "when: "),
    ],
)
def test_arguments_against_the_hints_are_refused_in_words(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ToolError, match=says) as caught:
        called(book, **arguments)
    assert caught.value.kind == "invalid_arguments"


def test_what_only_the_function_knows_of_its_arguments_is_checked_too() -> None:
    def half(n: Annotated[int, AfterValidator(even)]) -> int:
        return n // 2

    assert called(half, n=4) == "2"
    with pytest.raises(ToolError, match="3 is odd"):
        called(half, n=3)


# ---- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is\n", "as it is\n"),
        (None, "null"),
        ({"é": [1, True, 2.5]}, '{"é": [1, true, 2.5]}'),
        (Point(1), '{"x": 1, "title": "origin"}'),
        (Order(points=[Point(1)]), '{"points": [{"x": 1, "title": "origin"}]}'),
        ([date(2026, 1, 2), Color.RED, Decimal("1.5")], '["2026-01-02", "red", "1.5"]'),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        ({1: (n for n in (1, 2))}, '{"1": [1, 2]}'),
        (slice(1), '"slice(None, 1, None)"'),
    ],
)
def test_a_result_becomes_text(value: Any, text: str) -> None:
    assert result_text(value) == text


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(10**5):
        nested = [nested]
    return nested


def within_itself() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


class Unwritable:
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("value", [deep(), within_itself(), Unwritable()], ids=["deep", "circle", "broken"])
def test_a_result_that_json_cannot_hold_is_the_tools_failure(value: Any) -> None:
    with pytest.raises(ToolError, match="can't be written as JSON") as caught:
        result_text(value)
    assert caught.value.kind == "bad_result"


# ---- modules --------------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Writes and imports a module."""

    def make(text: str) -> ModuleType:
        monkeypatch.setattr(sys, "path", list(sys.path))
        path = tmp_path / "json.py"  # a name that another module has
        path.write_text(inspect.cleandoc(text), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "tools_of_json", raising=False)
        return load_module(str(path))

    return make


def test_public_functions_of_a_module_are_its_tools(module: Callable[[str], ModuleType]) -> None:
    made = module(
        """
        from __future__ import annotations
        import functools
        from os.path import join
        from dataclasses import dataclass

        @dataclass
        class Place:
            name: str

        def second(place: Place) -> str: return place.name
        def _hidden(): ...
        @functools.cache
        def first(n: int = 1): return n
        anonymous = lambda: 3
        LIMIT = 3
        """
    )
    assert [function.name for function in public_functions(made)] == ["second", "first", "anonymous"]


def test_all_names_the_tools_where_there_is_one(module: Callable[[str], ModuleType]) -> None:
    made = module(
        """
        from os.path import basename
        __all__ = ["two", "basename", "LIMIT"]
        LIMIT = 3
        def one(): ...
        def two(): ...
        """
    )
    assert [function.name for function in public_functions(made)] == ["two", "basename"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("x = 1", "no public function"), ("__all__ = ['f', 'g']\ndef f(): ...", "__all__ names 'g'")],
)
def test_a_module_without_tools_is_refused(module: Callable[[str], ModuleType], text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        public_functions(module(text))
