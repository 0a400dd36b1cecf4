"""What needs no process of a tool module: its pipe's frames, and modules that aren't there."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import UserError
from alpha_umi.tools.python_module import open_python_module
from alpha_umi.tools.worker import read_frame, write_frame


@given(st.binary(max_size=40))
def test_whatever_comes_over_the_pipe_is_a_frame_its_end_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_frame(io.BytesIO(data))


@given(st.dictionaries(st.text(alphabet=st.characters(exclude_categories=())), st.integers() | st.text(), max_size=3))
def test_a_frame_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    stream = io.BytesIO()
    write_frame(stream, value)
    stream.seek(0)
    assert read_frame(stream) == value
    assert read_frame(stream) is None


@pytest.mark.parametrize("spec", ["nowhere.py", "no_such_module", "no_such.module", "not a name", ""])
def test_a_module_that_is_not_there_needs_no_process(spec: str) -> None:
    with pytest.raises(UserError, match="there is no such file or module"):
        asyncio.run(open_python_module(spec))
