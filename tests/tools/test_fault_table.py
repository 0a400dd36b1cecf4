"""Every fault that a tool can have, for every source that it applies to: where it is tested, or why it can't occur."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("Python module", "OpenAPI", "MCP, stdio", "MCP, HTTP", "`program`", "handed out")

PYTHON = "tests/integration/test_python_module.py::"
OPENAPI = (
    "tests/tools/test_openapi_faults.py::test_whatever_a_server_does_there_is_an_observation_and_the_next_call_is_made"
)
CLIENT = "tests/tools/test_http.py::"
STDIO = "tests/tools/test_mcp_stdio.py::"
STDIO_EACH = STDIO + "test_whatever_a_server_does_there_is_an_observation_and_the_next_call_is_made"
STDIO_NEW = STDIO + "test_a_process_that_does_not_answer_after_a_call_was_stopped_is_started_anew"
HTTP = "tests/tools/test_mcp_http.py::"
HTTP_EACH = HTTP + "test_whatever_a_server_answers_there_is_an_observation_and_the_next_call_is_made"
BOTH = "tests/tools/test_mcp_at_work.py::test_a_call_that_hangs_is_stopped_and_the_run_goes_on"
PROGRAM = "tests/tools/test_program.py::test_odd_output_is_bounded_text_or_a_typed_failure_and_the_next_program_runs"
SANDBOX = "tests/integration/test_sandbox.py::test_every_resource_is_bounded"
CLIENTS = "tests/agent/test_tools_at_work.py::test_whatever_a_client_says_of_a_call_is_bounded_text_and_the_run_goes_on"
STOPPED = PYTHON + "test_a_call_that_takes_too_long_is_stopped_with_its_process_and_the_next_one_works"
ODD = PYTHON + "test_odd_results_are_bounded_text"
RAISED = PYTHON + "test_an_exception_is_told_without_a_traceback_and_the_process_goes_on"

OURS = "no HTTP of ours is between the agent and the tool"
NOBODY = "nobody here makes the call: there is nothing to wait for"
WHOLE = "a function's result is there as a whole, or not yet"

TABLE: dict[str, tuple[str, str, str, str, str, str]] = {
    "hangs": (STOPPED, OPENAPI, BOTH, HTTP_EACH, SANDBOX, NOBODY),
    "drips": (WHOLE, OPENAPI, STDIO_NEW, HTTP_EACH, PROGRAM, NOBODY),
    "500": (OURS, OPENAPI, OURS, HTTP_EACH, OURS, OURS),
    "429, 503 with Retry-After": (
        OURS, CLIENT + "test_a_busy_server_is_asked_again_when_it_said", OURS,
        HTTP + "test_a_busy_server_is_asked_again_when_it_says_but_only_for_what_can_be_repeated", OURS, OURS,
    ),
    "resets the connection": (OURS, OPENAPI, OURS, HTTP_EACH, OURS, OURS),
    "wrong content type": (OURS, OPENAPI, OURS, HTTP_EACH, OURS, OURS),
    "1 GB body": (ODD, OPENAPI, STDIO_EACH, HTTP_EACH, SANDBOX, CLIENTS),
    "gzip bomb": (OURS, OPENAPI, OURS, HTTP_EACH, OURS, OURS),
    "invalid UTF-8": (ODD, OPENAPI, STDIO_EACH, HTTP_EACH, PROGRAM, CLIENTS),
    "redirects to a metadata address": (OURS, OPENAPI, OURS, HTTP_EACH, OURS, OURS),
    "changes its address (DNS rebinding)": (
        OURS, CLIENT + "test_a_name_that_changes_its_address_is_connected_to_at_the_one_that_was_checked", OURS,
        HTTP + "test_a_name_is_resolved_for_each_connection_and_only_the_named_port_is_trusted", OURS, OURS,
    ),
    "dies in a call": (
        PYTHON + "test_a_process_that_dies_in_a_call_is_named_and_started_again", OPENAPI, STDIO_EACH, HTTP_EACH,
        "tests/tools/test_program.py::test_what_goes_wrong_is_a_typed_observation", NOBODY,
    ),
    "floods stderr": (
        PYTHON + "test_what_functions_print_is_not_in_the_programs_output", "a server has no stderr here", STDIO_EACH,
        "a server has no stderr here", PROGRAM, NOBODY,
    ),
    "writes another role's header": (
        ODD, OPENAPI, STDIO_EACH, HTTP + "test_another_role_in_a_reply_is_text", PROGRAM, CLIENTS,
    ),
    "10⁵ nested lists": (RAISED, OPENAPI, STDIO_EACH, HTTP_EACH, PROGRAM, CLIENTS),
}  # fmt: skip


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def documented() -> dict[str, list[str]]:
    """The rows of the table in the documentation."""
    text = (ROOT / "docs" / "tools.md").read_text("utf-8")
    lines = text.partition("## What tools do wrong")[2].partition("## Programs")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert tuple(rows[0][1:]) == SOURCES
    return {row[0]: row[1:] for row in rows[2:]}


@pytest.mark.parametrize("fault", TABLE)
def test_a_fault_is_tested_for_every_source_that_it_applies_to(fault: str) -> None:
    for place in TABLE[fault]:
        path, found, name = place.partition("::")
        assert not found or name in functions_of(path), place


def test_the_documentation_says_what_happens_wherever_a_fault_can_occur() -> None:
    said = documented()
    assert list(said) == list(TABLE)
    for fault, places in TABLE.items():
        assert [cell != "–" for cell in said[fault]] == ["::" in place for place in places], fault
