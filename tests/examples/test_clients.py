"""Every example of a client holds its conversation, where its package is installed.

The packages need not be where alpha_umi is (some of them want another `openai`): CLIENTS_PYTHON may name other
interpreters, as PATH does folders, and an example runs in the first that has what it imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.transcript import Renderer, Voice
from tests.serving.conftest import Served, serving
from tests.tokenizers import nano

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "clients"
PACKAGES = {
    "openai_sync": "openai", "openai_async": "openai", "openai_stream": "openai", "openai_parse": "openai",
    "agents_sdk": "agents", "langchain_tools": "langchain_openai", "smolagents_tools": "smolagents",
    "litellm_tools": "litellm",
}  # fmt: skip
ANSWER = "The balance of AC-6503 is 6687."


class Held(ScriptedEngine):
    """Says that it holds spans to grammars; what it is told to say fits them."""

    constrained = True


def bank(session: int, voice: Voice, text: str) -> str:
    """Looks the balance up and tells it: in the form that is asked for, or through smolagents' tool."""
    seen = '{"balance": 6687}' in text
    by_tool = '"final_answer"' in text
    if voice == "caller":
        name, given = ("final_answer", "answer") if seen else ("bankly_get_balance", "account_id")
        return f'{{"name": "{name}", "arguments": {{"{given}": "{ANSWER if seen else "AC-6503"}"}}}}'
    if voice == "planner":
        return f"I have read it.\nNext: {'Summarizer' if seen and not by_tool else 'Caller'}"
    return ANSWER


def parsed(session: int, voice: Voice, text: str) -> str:
    return '{"balance": 6687}' if voice == "summarizer" else bank(session, voice, text)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Held(bank, Renderer(nano())), "quickstart") as served:
        yield served


@pytest.fixture(scope="module")
def parsing() -> Iterator[Served]:
    with serving(Held(parsed, Renderer(nano())), "quickstart") as served:
        yield served


@cache
def has(python: str, package: str) -> bool:
    """Whether an interpreter has a package; it is not imported."""
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", look], timeout=60).returncode == 0


def interpreter(package: str) -> str:
    named = filter(None, os.environ.get("CLIENTS_PYTHON", "").split(os.pathsep))
    found = next((python for python in (sys.executable, *named) if has(python, package)), None)
    if found is None:
        pytest.skip(f"{package} is not installed; CLIENTS_PYTHON may name an interpreter that has it")
    return found


def test_every_example_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*PACKAGES, "bank"}


@pytest.mark.parametrize("name", PACKAGES)
def test_an_example_holds_its_conversation(name: str, request: pytest.FixtureRequest):
    served: Served = request.getfixturevalue("parsing" if name == "openai_parse" else "served")
    done = subprocess.run(
        [interpreter(PACKAGES[name]), str(FOLDER / f"{name}.py"), served.url], capture_output=True, text=True,
        timeout=280, env=os.environ | {"OPENAI_API_KEY": "", "LITELLM_LOCAL_MODEL_COST_MAP": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tool  bankly_get_balance(AC-6503) -> " in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.endswith("Balance(balance=6687)" if name == "openai_parse" else ANSWER)
