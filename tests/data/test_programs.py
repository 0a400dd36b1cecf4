"""Arithmetic has the value that Python, and the sandbox, give it; nothing else has one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import convert
from alpha_umi.data.programs import value_of
from alpha_umi.tools.sandbox import SandboxError, open_sandbox
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory

NUMBERS = st.integers(0, 10**6).map(str) | st.floats(0, 1e6).map(repr) | st.sampled_from([".5", "0", "1."])
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//"]), inner).map(" ".join)
    | inner.map("({})".format) | inner.map("-{}".format),
)  # fmt: skip


@given(EXPRESSIONS)
def test_the_value_is_the_one_that_python_gives(expression: str) -> None:
    try:
        value = eval(expression)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="ZeroDivisionError"):
            value_of(expression)
    else:
        assert repr(value_of(expression)) == repr(value)


@pytest.mark.parametrize(
    "other",
    [
        "", "1 +", "x", "f(1)", "2 ** 9", "1 < 2", "True", "'a' * 9", "1j", "(1, 2)", "1e308 * 10", "9" * 5000, "1 % 2",
        "__import__('os')", "(" * 9999, "1; 2", "-" * 9999 + "1", "9" * 400, "lambda: 1", "0777", "1\0",
    ],
)  # fmt: skip
def test_nothing_else_has_one(other: str) -> None:
    with pytest.raises(ValueError, match=r"arithmetic|digits|null"):
        value_of(other)


@given(st.text(alphabet="0123456789.+-*/() eE_x", max_size=30))
def test_whatever_the_text_there_is_a_value_or_an_error(text: str) -> None:
    try:
        assert isinstance(value_of(text), int | float)
    except ValueError as error:
        assert str(error)


def test_the_sandbox_gives_every_observation_of_the_real_file(real_data: Path) -> None:
    expected: dict[str, str] = {}
    for trajectory in convert(real_data / "gsm8k" / "test.jsonl", "gsm8k"):
        if isinstance(trajectory, Trajectory):
            calls = [one for m in trajectory.messages if isinstance(m, AssistantMessage) for one in m.tool_calls]
            told = [m.content for m in trajectory.messages if isinstance(m, ToolMessage)]
            expected |= {(one.parsed() or {})["code"]: text for one, text in zip(calls, told, strict=True)}
    assert len(expected) > 2000
    code = f"import json\njson.dumps([repr(eval(one)) for one in {list(expected)!r}])"

    async def ran() -> str:
        return await (await open_sandbox()).run(code)

    try:
        output = asyncio.run(ran())
    except SandboxError as error:
        pytest.skip(str(error))
    assert json.loads(output.strip().strip("'")) == list(expected.values())
