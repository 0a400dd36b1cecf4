"""What stands behind ``--tools mcp:``, and what servers say as tools and as text."""

from __future__ import annotations

import json
from typing import Any

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.mcp_result import read_tools, result_text
from alpha_umi.tools.mcp_server import HttpServer, StdioServer, read_server

ENVIRONMENT = {
    "PATH": "/bin", "SHELL": "() { :; }", "GITHUB_TOKEN": "canary-value", "LEVEL": "verbose", "EMPTY": "", "OTHER": "x",
}  # fmt: skip


def stdio(spec: str) -> StdioServer:
    server = read_server(spec, ENVIRONMENT)
    assert isinstance(server, StdioServer)
    return server


def http(spec: str) -> HttpServer:
    server = read_server(spec, ENVIRONMENT)
    assert isinstance(server, HttpServer)
    return server


def test_a_command_line_is_read_as_a_shell_reads_it_and_sees_little() -> None:
    server = stdio("mcp:uvx 'some server' --root=/tmp/$x")
    assert server.command == ("uvx", "some server", "--root=/tmp/$x")
    assert (server.environment, server.secrets) == ({"PATH": "/bin"}, ())
    assert str(server) == "uvx 'some server' '--root=/tmp/$x'"


def test_settings_before_a_command_are_its_variables() -> None:
    server = stdio("mcp:A=1 TOKEN=$GITHUB_TOKEN LEVEL=${LEVEL}! MY_KEY=abcdefg uvx server B=2")
    assert server.command == ("uvx", "server", "B=2")
    assert server.environment == {
        "PATH": "/bin", "A": "1", "TOKEN": "canary-value", "LEVEL": "verbose!", "MY_KEY": "abcdefg",
    }  # fmt: skip
    assert set(server.secrets) == {"canary-value", "abcdefg"}
    assert "canary" not in repr(server) + str(server)


@pytest.mark.parametrize("spec", ["mcp+https://host/mcp?key=secret#x", "mcp:https://host/mcp?key=secret"])
def test_a_url_is_a_server_over_http(spec: str) -> None:
    server = http(spec)
    assert (server.url, server.headers, str(server)) == ("https://host/mcp?key=secret", {}, "https://host/mcp")
    assert "secret" not in repr(server).replace("secrets", "")


def test_settings_before_a_url_are_headers_and_all_of_them_secrets() -> None:
    server = http('mcp:Authorization="Bearer $GITHUB_TOKEN" X-Mode=abc http://host:80/mcp')
    assert server.headers == {"Authorization": "Bearer canary-value", "X-Mode": "abc"}
    assert set(server.secrets) == {"canary-value", "Bearer canary-value"}
    assert "canary" not in repr(server) + str(server)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("mcp:", "name a server"),
        ("mcp:  ", "name a server"),
        ("mcp:A=1", "name a server"),
        ("mcp:uvx 'server", "check its quotes"),
        ("mcp:https://user:canary@host/mcp", "user name or password"),
        ("mcp+http://", "can't be used"),
        ("mcp:https://host/mcp --flag", "nothing may follow"),
        ("mcp:A=$NOWHERE uvx server", "variable NOWHERE, which A of an MCP server needs, is not set"),
        ("mcp:A=$EMPTY uvx server", "variable EMPTY"),
        ("mcp:A='x\ny' uvx server", "printable"),
    ],
)
def test_what_is_given_wrong_is_one_sentence(spec: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_server(spec, ENVIRONMENT)
    assert says == "user name or password" or "canary" not in str(caught.value)


@given(st.text(max_size=40))
def test_whatever_is_given_is_a_server_or_one_sentence(text: str) -> None:
    for spec in (f"mcp:{text}", f"mcp+https://{text}"):
        try:
            read_server(spec, ENVIRONMENT)
        except UserError as error:
            assert str(error)


# ---- tools ----------------------------------------------------------------------------------------------------------


def tool(name: str, **hints: Any) -> mcp_types.Tool:
    annotations = mcp_types.ToolAnnotations(**hints) if hints else None
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    return mcp_types.Tool(name=name, description="Does\x1b[2J it.", input_schema=schema, annotations=annotations)


@pytest.mark.parametrize(
    ("hints", "writes", "repeatable"),
    [
        ({}, True, False),
        ({"read_only_hint": True}, False, True),
        ({"read_only_hint": False, "destructive_hint": False}, True, False),
        ({"read_only_hint": True, "destructive_hint": True}, True, False),
        ({"idempotent_hint": True}, True, True),
        ({"title": "T"}, True, False),
    ],
)
def test_a_tool_may_write_unless_its_server_says_that_it_reads(
    hints: dict[str, Any], writes: bool, repeatable: bool
) -> None:
    ((read,), _) = read_tools([tool("f", **hints)])
    assert (read.writes, read.repeatable) == (writes, repeatable)


def test_tools_have_legal_unique_names_and_their_own_schemas() -> None:
    read, left_out = read_tools([tool("a/b.c"), tool("a b c"), tool("…"), tool("x" * 100), tool("x" * 100)])
    assert left_out == {}
    assert [one.tool.name for one in read] == ["a_b_c", "a_b_c_2", "tool", "x" * 64, "x" * 62 + "_2"]
    assert read[0].name == "a/b.c"
    assert json.dumps(read[0].tool.parameters) == '{"type": "object", "properties": {"b": {}, "a": {}}}'
    assert read[0].tool.description == "Does it."


def test_a_tool_whose_schema_is_no_json_is_left_out_with_the_reason() -> None:
    broken = tool("broken")
    broken.input_schema["properties"]["b"] = {"maximum": float("inf")}
    read, left_out = read_tools([tool("good"), broken])
    assert [one.name for one in read] == ["good"]
    assert left_out == {"broken": "its schema is no JSON: properties.b.maximum: Infinity is no finite number"}


# ---- results --------------------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": "hello"}
IMAGE = {"type": "image", "mimeType": "image/png", "data": "aGVsbG8="}
SOUND = {"type": "audio", "mimeType": "audio/wav", "data": ""}
LINK = {"type": "resource_link", "name": "notes", "uri": "file:///notes"}
FILE = {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}
BLOB = {"type": "resource", "resource": {"uri": "file:///b", "blob": "aGVsbG8="}}


def result(*content: Any, **more: Any) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult.model_validate({"content": list(content), **more})


@pytest.mark.parametrize(
    ("content", "more", "text"),
    [
        ([TEXT], {}, "hello"),
        ([TEXT, TEXT], {}, "hello\nhello"),
        ([], {}, ""),
        ([IMAGE, SOUND], {}, "[image/png, 5 bytes, not shown]\n[audio/wav, 0 bytes, not shown]"),
        ([LINK, FILE, BLOB], {}, "[resource notes: file:///notes]\ninside\n[binary data, 5 bytes, not shown]"),
        ([TEXT, IMAGE], {"structuredContent": {"é": 1}}, '{"é": 1}\n[image/png, 5 bytes, not shown]'),
        ([TEXT], {"structuredContent": None}, "hello"),
    ],
)
def test_a_result_is_text_and_what_is_no_text_a_placeholder(content: Any, more: Any, text: str) -> None:
    assert result_text(result(*content, **more)) == text


@pytest.mark.parametrize(("content", "says"), [([TEXT], "hello"), ([], "does not say why")])
def test_a_result_that_is_a_failure_is_one(content: Any, says: str) -> None:
    with pytest.raises(ToolError, match=says) as caught:
        result_text(result(*content, isError=True, structuredContent={"a": 1}))
    assert caught.value.kind == "tool_error"
