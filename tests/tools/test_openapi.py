"""OpenAPI documents as tools: against a real application, and over what documents, models and servers get wrong."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpx2")

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.addresses import system_resolver
from alpha_umi.tools.approval import Approval, ApprovalPolicy
from alpha_umi.tools.execution import execute
from alpha_umi.tools.http import HttpLimits, parse_url
from alpha_umi.tools.openapi import OpenApiSource, open_openapi, tools_of
from alpha_umi.tools.openapi_document import parse_document
from alpha_umi.tools.openapi_operation import Operation, read_operations
from alpha_umi.tools.openapi_request import build_request
from alpha_umi.trajectory import ToolCall, schema_problem
from tests.tools.web import Handler, Received, answering, respond, serving

LIMITS = HttpLimits(timeout=10, retries=0)
STRING = {"type": "string"}


def document(paths: Mapping[str, Any], version: str = "3.1.0", **more: Any) -> dict[str, Any]:
    return {"openapi": version, "info": {"title": "t", "version": "1"}, "paths": paths, **more}


def operation(place: str = "query", /, method: str = "get", path: str = "/x", **parameter: Any) -> dict[str, Any]:
    """Paths with one operation, ``op``, of one parameter, ``p``."""
    given = {"name": "p", "in": place, "schema": STRING, "required": place == "path", **parameter}
    return {path: {method: {"operationId": "op", "parameters": [given]}}}


def body_of(schema: Any, media_type: str = "application/json", **more: Any) -> dict[str, Any]:
    content = {media_type: {"schema": schema}}
    return {"/x": {"post": {"operationId": "op", "requestBody": {"content": content, **more}}}}


def write(tmp_path: Path, content: Mapping[str, Any] | str, name: str = "api.json") -> str:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def opened(tmp_path: Path, content: Mapping[str, Any] | str, **options: Any) -> OpenApiSource:
    """A source that is not called."""
    options = {"base_url": "http://127.0.0.1:9"} | options

    async def run() -> OpenApiSource:
        source = await open_openapi(write(tmp_path, content), **options)
        await source.aclose()
        return source

    return asyncio.run(run())


def parameters_of(source: OpenApiSource, number: int = 0) -> dict[str, Any]:
    return source.tools[number].parameters


def called(
    tmp_path: Path,
    content: Mapping[str, Any],
    arguments: dict[str, Any],
    *,
    name: str = "op",
    handler: Handler | None = None,
    **options: Any,
) -> tuple[str, Received]:
    """Calls an operation on a server; returns what the agent reads and what the server received."""

    async def run() -> tuple[str, Received]:
        async with serving(handler or answering(200, b"ok")) as web:
            source = await open_openapi(write(tmp_path, content), **{"base_url": web.url, "limits": LIMITS} | options)
            call = ToolCall("call_0", name, json.dumps(arguments))
            observation = await execute(source, call, timeout=10, approval=Approval(ApprovalPolicy.NEVER))
            await source.aclose()
            return observation.text, web.received[-1] if web.received else Received("", "", {}, b"")

    return asyncio.run(run())


# ---- a real application -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hotels() -> Iterator[str]:
    """The URL of a FastAPI application on a loopback port."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    from tests.tools.hotels import application

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def ask(url: str, name: str, arguments: dict[str, Any], **options: Any) -> tuple[str, str | None]:
    async def run() -> tuple[str, str | None]:
        source = await open_openapi(f"{url}/openapi.json", **options)
        try:
            return await source.call(name, arguments), None
        except ToolError as error:
            return str(error), error.kind
        finally:
            await source.aclose()

    return asyncio.run(run())


def test_an_application_gives_its_own_tools(hotels: str) -> None:
    async def run() -> OpenApiSource:
        source = await open_openapi(f"{hotels}/openapi.json")
        await source.aclose()
        return source

    source = asyncio.run(run())
    assert [tool.name for tool in source.tools] == ["find_hotels", "book", "cancel", "me", "key"]
    assert source.writes == {"book", "cancel"}
    assert source.left_out == {}
    assert source.tools[0].description == "Finds hotels.\nLists the hotels of a city."
    assert source.tools[0].extra == {"openapi": {"method": "GET", "path": "/hotels/{city}"}}
    assert parameters_of(source)["required"] == ["city"]
    assert list(parameters_of(source)["properties"]) == ["city", "stars", "x-lang", "session"]
    booking = parameters_of(source, 1)
    assert booking["required"] == ["city", "guest", "room"]
    assert booking["properties"]["room"]["properties"]["wishes"]["items"] == STRING
    assert "$ref" not in json.dumps(booking)


def test_an_applications_tools_do_what_they_say(hotels: str) -> None:
    found, _ = ask(hotels, "find_hotels", {"city": "São Paulo?", "stars": [3, 4], "x-lang": "pt", "session": "s1"})
    assert json.loads(found) == {"city": "São Paulo?", "stars": [3, 4], "lang": "pt", "session": "s1"}
    booked, _ = ask(hotels, "book", {"city": "Rom", "guest": "Ada", "room": {"number": 7}})
    assert json.loads(booked) == {"city": "Rom", "number": 7, "bookings": 1}
    assert ask(hotels, "cancel", {"id": 1}) == ('{"status": 204}', None)


def test_what_the_application_refuses_is_an_observation(hotels: str) -> None:
    text, kind = ask(hotels, "book", {"city": "Rom", "guest": "Ada", "room": {"number": "seven"}})
    assert kind == "http_422"
    assert "int_parsing" in text


def test_credentials_reach_the_application_and_nobody_else(hotels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTEL_BEARER", "bearer-canary")
    monkeypatch.setenv("HOTEL_HEADER", "header-canary")
    auth = {"HTTPBearer": "HOTEL_BEARER", "APIKeyHeader": "HOTEL_HEADER"}
    assert ask(hotels, "me", {})[1] in ("http_401", "http_403")
    assert ask(hotels, "me", {}, auth=auth)[0] == '{"ok":true,"you sent":"[masked]"}'
    assert ask(hotels, "key", {}, auth=auth)[0] == '{"ok":true}'


# ---- documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_document_may_be_json_or_yaml_of_either_version(tmp_path: Path, version: str, form: str) -> None:
    content = document(operation(), version)
    source = opened(tmp_path, json.dumps(content) if form == "json" else yaml.safe_dump(content))
    assert parameters_of(source) == {"type": "object", "properties": {"p": STRING}}


def test_yaml_is_read_as_openapi_means_it(tmp_path: Path) -> None:
    text = """
        openapi: 3.0.3
        paths:
          /x:
            get:
              operationId: op
              parameters:
                - {name: on, in: query, schema: {type: string, enum: [yes, no, 2020-01-01]}}
                - {name: flag, in: query, required: true, schema: {type: boolean}}
    """
    schema = parameters_of(opened(tmp_path, text))
    assert schema["properties"]["on"]["enum"] == ["yes", "no", "2020-01-01"]
    assert schema["required"] == ["flag"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
        ("{" * 100_000, "nested too deeply"),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("\0", "JSON or YAML"),
        ("", "holds no object"),
        ("[1]", "holds no object"),
        ("swagger: '2.0'", "is Swagger 2.0; documents of OpenAPI 3.0 and 3.1 can be used"),
        ("a: 1", "is OpenAPI of no version"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("openapi: 3.0.0\na: &a\n  b: *a", "aliases"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)), "aliases"),
        ("a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)), "merged"),
        ('{"openapi": "3.1.0"}', "no operation of .* can become a tool; it has none"),
        ('{"openapi": "3.1.0", "paths": []}', "it has none"),
        ('{"openapi": "3.1.0", "paths": {"/x": {"$ref": "other.json"}}}', "'other.json' leads out of the document"),
    ],
)
def test_what_is_no_usable_document_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        opened(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory; give an OpenAPI document or its URL"):
        asyncio.run(open_openapi(str(tmp_path / "none.json")))
    (tmp_path / "latin.json").write_bytes(b'{"openapi": "\xe9"}')
    with pytest.raises(UserError, match="is not UTF-8"):
        asyncio.run(open_openapi(str(tmp_path / "latin.json")))


@pytest.mark.parametrize(
    ("handler", "words"),
    [(answering(404, b"nothing"), "Not Found: nothing"), (answering(302, Location="http://10.0.0.1/"), "not a public")],
)
def test_a_url_that_cannot_be_read_is_one_sentence_without_its_query(handler: Handler, words: str) -> None:
    async def run() -> None:
        async with serving(handler) as web:
            with pytest.raises(UserError, match=words) as caught:
                await open_openapi(f"{web.url}/openapi.json?key=canary")
            assert "canary" not in str(caught.value)

    asyncio.run(run())
    with pytest.raises(UserError, match="user name or password in it") as caught:
        asyncio.run(open_openapi("http://user:canary@127.0.0.1:9/openapi.json"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("reference", ["https://evil.example/a.json#/b", "b.json#/c", "file:///etc/passwd", "//e/x"])
def test_a_reference_out_of_the_document_is_never_followed(tmp_path: Path, reference: str) -> None:
    paths = {
        "/s": {
            "get": {"operationId": "s", "parameters": [{"name": "p", "in": "query", "schema": {"$ref": reference}}]}
        },
        "/p": {"get": {"operationId": "p", "parameters": [{"$ref": reference}]}},
        "/b": {"post": {"operationId": "b", "requestBody": {"$ref": reference}}},
        "/good": {"get": {"operationId": "good"}},
    }

    async def never(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    source = opened(tmp_path, document(paths), resolve=never)
    assert [tool.name for tool in source.tools] == ["good"]
    assert source.left_out.keys() == {"s", "p", "b"}
    assert all("leads out of the document and is not followed" in reason for reason in source.left_out.values())


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (operation("query", schema={"$ref": "#/components/schemas/None"}), "leads to nothing"),
        (operation("path", path="/{p}", style="matrix"), "style 'matrix'"),
        (operation("body"), "Input should be 'path', 'query', 'header' or 'cookie'"),
        (operation(name=""), "at least 1 character"),
        (operation(path="//evil.example/x"), ""),
        (operation(path="x"), "does not begin with a slash"),
        (operation(path="@evil.example/x"), "does not begin with a slash"),
        (body_of({}, "application/octet-stream", required=True), "its body is of application/octet-stream"),
        ({"/x": {"get": []}}, "valid dictionary"),
        (operation("query", schema={"$ref": "#/components/schemas/Round"}), "defined by itself"),
        (operation("query", schema={"maximum": float("nan")}), "properties.p.maximum: NaN is no finite number"),
        (operation("query", schema={"enum": [1, float("inf")]}), "enum.1: Infinity is no finite number"),
    ],
)
def test_an_operation_that_cannot_be_used_is_left_out_alone(tmp_path: Path, paths: dict[str, Any], words: str) -> None:
    round_ = {"Round": {"$ref": "#/components/schemas/Round"}}
    good = {"/good": {"get": {"operationId": "good"}}}
    source = opened(tmp_path, document(paths | good, components={"schemas": round_}))
    assert source.tools[-1].name == "good"
    if words:
        assert len(source.tools) == 1
        assert words in "".join(source.left_out.values())


# ---- schemas ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"oneOf": [STRING], "nullable": True}, {"anyOf": [{"oneOf": [STRING]}, {"type": "null"}]}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": False}, {"type": "integer", "maximum": 1}),
        ({"type": "string", "example": "x", "xml": {}, "x-more": 1, "title": "T", "deprecated": True}, STRING),
        ({"allOf": [STRING], "description": "d"}, {"type": "string", "description": "d"}),
        ({"$ref": "#/components/schemas/Text", "description": "ignored in 3.0"}, STRING),
        ({"type": "integer", "maximum": "50", "minimum": 1}, {"type": "integer", "minimum": 1}),
        ({"type": "strin", "enum": "x", "required": True}, {}),
        ({"type": "string", "pattern": "(", "minLength": 1}, {"type": "string", "minLength": 1}),
        ({"type": "array", "items": "nothing"}, {"type": "array", "items": {}}),
        ("no schema", {}),
    ],
)
def test_a_schema_of_openapi_3_0_becomes_json_schema(tmp_path: Path, given: Any, expected: Any) -> None:
    content = document(operation(schema=given), "3.0.3", components={"schemas": {"Text": STRING}})
    source = opened(tmp_path, content)
    assert parameters_of(source)["properties"]["p"] == expected
    assert schema_problem(source.tools[0].schema) is None


def test_what_stands_beside_a_reference_counts_in_3_1(tmp_path: Path) -> None:
    content = document(
        operation(schema={"$ref": "#/components/schemas/Text", "description": "d", "maxLength": 3}),
        components={"schemas": {"Text": STRING}},
    )
    assert parameters_of(opened(tmp_path, content))["properties"]["p"] == {
        "allOf": [STRING, {"maxLength": 3}],
        "description": "d",
    }


def test_a_schema_that_contains_itself_is_a_definition(tmp_path: Path) -> None:
    node = {"type": "object", "properties": {"value": STRING, "next": {"$ref": "#/components/schemas/Node"}}}
    schema = parameters_of(
        opened(
            tmp_path, document(body_of({"$ref": "#/components/schemas/Node"}), components={"schemas": {"Node": node}})
        )
    )
    assert schema["properties"] == {"value": STRING, "next": {"$ref": "#/$defs/Node"}}
    assert schema["$defs"]["Node"]["properties"]["next"] == {"$ref": "#/$defs/Node"}


def test_schemas_that_double_at_every_level_do_not_grow_without_bound(tmp_path: Path) -> None:
    schemas: dict[str, Any] = {"S0": STRING}
    for number in range(1, 50):
        below = {"$ref": f"#/components/schemas/S{number - 1}"}
        schemas[f"S{number}"] = {"type": "object", "properties": {"a": below, "b": below}}
    content = document(body_of({"$ref": "#/components/schemas/S49"}), components={"schemas": schemas})
    source = opened(tmp_path, content)
    assert len(source.tools[0].schema) < 100_000
    assert schema_problem(source.tools[0].schema) is None


def test_a_schema_nested_without_end_is_left_out(tmp_path: Path) -> None:
    schema: dict[str, Any] = STRING
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UserError, match="too large or nested too deeply"):
        opened(tmp_path, document(body_of(schema)))


def test_all_of_plain_objects_is_one_object(tmp_path: Path) -> None:
    base = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}, "kind": STRING}}
    more = {"required": ["kind"], "properties": {"size": {"type": "number"}, "kind": {"enum": ["a"]}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Base"}, more], "description": "A thing."}
    source = opened(tmp_path, document(body_of(schema), components={"schemas": {"Base": base}}))
    assert parameters_of(source) == {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "kind": {"allOf": [STRING, {"enum": ["a"]}]},
            "size": {"type": "number"},
        },
        "required": ["id", "kind"],
    }


def test_what_only_the_server_sends_is_no_argument(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "required": ["id", "a"],
        "properties": {"id": {**STRING, "readOnly": True}, "a": STRING},
    }
    assert parameters_of(opened(tmp_path, document(body_of(schema)))) == {
        "type": "object",
        "properties": {"a": STRING},
        "required": ["a"],
    }


def test_arguments_of_one_name_are_told_apart_by_their_places(tmp_path: Path) -> None:
    parameters = [{"name": "id", "in": place, "schema": STRING} for place in ("query", "path", "header", "cookie")]
    paths = body_of({"type": "object", "properties": {"id": STRING, "id_query": STRING}})
    paths["/x/{id}"] = paths.pop("/x")
    paths["/x/{id}"]["post"]["parameters"] = parameters
    content = document(paths)
    names = ["id", "id_query", "id_header", "id_cookie", "id_body", "id_query_body"]
    assert list(parameters_of(opened(tmp_path, content))["properties"]) == names
    _, received = called(tmp_path, content, {name: f"<{name}>" for name in names})
    assert received.target == "/x/%3Cid%3E?id=%3Cid_query%3E"
    assert received.headers["id"] == "<id_header>"
    assert received.headers["cookie"] == "id=<id_cookie>"
    assert json.loads(received.body) == {"id": "<id_body>", "id_query": "<id_query_body>"}


def test_headers_that_are_not_a_models_to_write_are_no_arguments(tmp_path: Path) -> None:
    names = ("Host", "Content-Length", "Transfer-Encoding", "Authorization", "Cookie", "accept", "X-Fine")
    parameters = [{"name": name, "in": "header", "schema": STRING} for name in names]
    source = opened(tmp_path, document({"/x": {"get": {"parameters": parameters}}}))
    assert list(parameters_of(source)["properties"]) == ["X-Fine"]


def test_public_documents_are_read_whole(real_data: Path) -> None:
    async def run(name: str) -> OpenApiSource:
        source = await open_openapi(str(real_data / "restbench" / "specs" / name))
        await source.aclose()
        return source

    for name, count in (("spotify_oas.json", 40), ("tmdb_oas.json", 54)):
        source = asyncio.run(run(name))
        assert (len(source.tools), source.left_out) == (count, {})
        assert all(schema_problem(tool.schema) is None for tool in source.tools)


# ---- names and filters --------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=80), min_size=1, max_size=5))
def test_names_are_legal_and_unique(ids: list[str]) -> None:
    paths = {f"/{number}": {"get": {"operationId": name}} for number, name in enumerate(ids)}
    tools, left_out = tools_of(read_operations(parse_document(json.dumps(document(paths)), "it"), "http://a.example"))
    names = [tool.name for tool, _ in tools]
    assert left_out == {}
    assert len(set(names)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names)


def test_an_operation_without_a_name_has_its_method_and_path(tmp_path: Path) -> None:
    paths = {"/pets/{id}/toys": {"get": {}, "delete": {}}}
    source = opened(tmp_path, document(paths))
    assert [tool.name for tool in source.tools] == ["get_pets_id_toys", "delete_pets_id_toys"]
    assert parameters_of(source) == {"type": "object", "properties": {"id": STRING}, "required": ["id"]}


PETS = document(
    {
        "/pets": {
            "get": {"operationId": "list pets", "tags": ["read"]},
            "post": {"operationId": "addPet", "tags": ["write", "pets"]},
        },
        "/users": {"get": {"operationId": "users", "tags": ["read"]}},
    }
)


@pytest.mark.parametrize(
    ("only", "tags", "kept"),
    [
        (["addPet"], [], ["addPet"]),
        (["list pets", "GET /users"], [], ["list_pets", "users"]),
        (["list_pets"], [], ["list_pets"]),
        ([], ["pets"], ["addPet"]),
        ([], ["read", "write"], ["list_pets", "addPet", "users"]),
        (["users", "addPet"], ["read"], ["users"]),
    ],
)
def test_filters_keep_what_they_name(tmp_path: Path, only: list[str], tags: list[str], kept: list[str]) -> None:
    assert [tool.name for tool in opened(tmp_path, PETS, only=only, tags=tags).tools] == kept


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": ["addPets"]}, "no tool 'addPets'; did you mean 'addPet'?"),
        ({"tags": ["nothing"]}, "no tag 'nothing'; there are pets, read, write"),
        ({"only": ["addPet"], "tags": ["read"]}, "both one of the names and one of the tags"),
        ({"base_url": "localhost:8000"}, "does not begin with http:// or https:// and a host"),
        ({"base_url": "http://u:canary@a.example"}, "user name or password in it"),
        ({"base_url": None}, "server's URL can't be used without a base URL from you"),
    ],
)
def test_options_that_fit_nothing_are_one_sentence(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(tmp_path, PETS, **options)
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)


# ---- requests -----------------------------------------------------------------------------------------------------

LIST = {"type": "array", "items": {"type": "integer"}}
OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    ("parameter", "value", "target"),
    [
        ({}, "a b&c=d#?", "/x?p=a%20b%26c%3Dd%23%3F"),
        ({}, "\r\nHost: evil", "/x?p=%0D%0AHost%3A%20evil"),
        ({}, "\ud800", "/x?p=%3F"),
        ({"schema": {"type": "boolean"}}, True, "/x?p=true"),
        ({"schema": {"type": "number"}}, 1.5, "/x?p=1.5"),
        ({"schema": {"type": ["string", "null"]}}, None, "/x"),
        ({"schema": LIST}, [1, 2], "/x?p=1&p=2"),
        ({"schema": LIST}, [], "/x"),
        ({"schema": LIST, "explode": False}, [1, 2], "/x?p=1%2C2"),
        ({"schema": LIST, "style": "pipeDelimited"}, [1, 2], "/x?p=1%7C2"),
        ({"schema": LIST, "style": "spaceDelimited"}, [1, 2], "/x?p=1%202"),
        ({"schema": OBJECT}, {"a": 1, "b": True}, "/x?a=1&b=true"),
        ({"schema": OBJECT, "explode": False}, {"a": 1, "b": 2}, "/x?p=a%2C1%2Cb%2C2"),
        ({"schema": OBJECT, "style": "deepObject"}, {"a": 1, "b": "x"}, "/x?p%5Ba%5D=1&p%5Bb%5D=x"),
        ({"content": {"application/json": {"schema": OBJECT}}}, {"a": "b"}, "/x?p=%7B%22a%22%3A%20%22b%22%7D"),
    ],
)
def test_a_query_is_written_as_the_document_says(
    tmp_path: Path, parameter: dict[str, Any], value: Any, target: str
) -> None:
    text, received = called(tmp_path, document(operation("query", **parameter)), {"p": value})
    assert (text, received.target) == ("ok", target)
    assert list(received.headers).count("host") == 1


@pytest.mark.parametrize(
    ("schema", "media_type", "arguments", "body", "content_type"),
    [
        ({"type": "object", "properties": {"a": STRING}}, "application/json", {"a": "é"}, b'{"a": "\\u00e9"}', None),
        ({"type": "object", "properties": {"a": STRING}}, "application/json", {}, b"", ""),
        (LIST, "application/json", {"body": [1]}, b"[1]", None),
        (LIST, "application/vnd.api+json", {"body": []}, b"[]", None),
        ({"type": ["string", "null"]}, "application/json", {"body": None}, b"null", None),
        (OBJECT | {"additionalProperties": {}}, "*/*", {"body": {"k": 1}}, b'{"k": 1}', "application/json"),
        (STRING, "text/plain", {"body": "hé"}, "hé".encode(), "text/plain; charset=utf-8"),
        (
            {"type": "object", "properties": {"a": STRING, "l": LIST, "o": OBJECT, "n": {}}},
            "application/x-www-form-urlencoded",
            {"a": "x&y=z", "l": [1, 2], "o": {"k": 1}, "n": None},
            b"a=x%26y%3Dz&l=1&l=2&o=%7B%22k%22%3A+1%7D",
            None,
        ),
    ],
)
def test_a_body_is_written_as_the_document_says(
    tmp_path: Path, schema: Any, media_type: str, arguments: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    _, received = called(tmp_path, document(body_of(schema, media_type)), arguments)
    assert received.body == body
    assert received.headers.get("content-type", "") == (media_type if content_type is None else content_type)


def test_of_several_media_types_json_is_sent(tmp_path: Path) -> None:
    kinds = ("text/plain", "multipart/form-data", "*/*", "application/json; charset=utf-8")
    content = {kind: {"schema": {"type": "object", "properties": {"a": STRING}}} for kind in kinds}
    paths = {"/x": {"post": {"operationId": "op", "requestBody": {"content": content}}}}
    _, received = called(tmp_path, document(paths), {"a": "x"})
    assert (received.body, received.headers["content-type"]) == (b'{"a": "x"}', "application/json; charset=utf-8")


def test_a_required_body_without_arguments_is_an_empty_object(tmp_path: Path) -> None:
    content = document(body_of({"type": "object", "properties": {"a": STRING}}, required=True))
    assert called(tmp_path, content, {})[1].body == b"{}"


def test_a_form_of_parts_carries_its_fields(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": STRING, "n": {"type": "integer"}}}
    _, received = called(tmp_path, document(body_of(schema, "multipart/form-data")), {"a": '"\r\n--x', "n": 3})
    assert received.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="a"\r\n\r\n"\r\n--x\r\n' in received.body
    assert b'name="n"\r\n\r\n3\r\n' in received.body


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("a b", "/v1/items/a%20b/end"),
        ("a/b", "/v1/items/a%2Fb/end"),
        ("//evil.example", "/v1/items/%2F%2Fevil.example/end"),
        ("@evil.example", "/v1/items/%40evil.example/end"),
        ("?admin=1", "/v1/items/%3Fadmin%3D1/end"),
        ("#x", "/v1/items/%23x/end"),
        ("a\r\nX: y", "/v1/items/a%0D%0AX%3A%20y/end"),
        ("{p}", "/v1/items/%7Bp%7D/end"),
        ("...", "/v1/items/.../end"),
        ("é\x00", "/v1/items/%C3%A9%00/end"),
    ],
)
def test_a_path_argument_stays_in_its_segment(tmp_path: Path, value: str, target: str) -> None:
    content = document(operation("path", path="/items/{p}/end"))

    async def run() -> None:
        async with serving(answering(200, b"ok")) as web:
            source = await open_openapi(write(tmp_path, content), base_url=f"{web.url}/v1/")
            assert await source.call("op", {"p": value}) == "ok"
            await source.aclose()
            assert web.targets == [target]

    asyncio.run(run())


@pytest.mark.parametrize(
    "value", ["", ".", "..", "../x", "a/../../b", "%2e%2e", "%252e%252e/x", "..\\x", "a/..", "..%2fx", "./x", "%2E."]
)
def test_a_path_argument_that_leads_up_is_refused(tmp_path: Path, value: str) -> None:
    text, received = called(tmp_path, document(operation("path", path="/items/{p}/end")), {"p": value})
    assert json.loads(text)["error"].startswith("invalid_arguments: p: empty values, '.' and '..'")
    assert received.target == ""


def one_operation(content: Mapping[str, Any], base: str = "https://api.example/v1") -> Operation:
    ((_, read),) = read_operations(parse_document(json.dumps(content), "it"), base)
    assert isinstance(read, Operation)
    return read


@given(st.text(max_size=40))
def test_no_path_argument_changes_the_host_or_the_path(value: str) -> None:
    read = one_operation(document(operation("path", path="/items/{p}/end")))
    try:
        url = build_request(read, {"p": value}, ()).url
    except ToolError as error:
        assert error.kind == "invalid_arguments"
        return
    assert (url.host, url.port, url.query) == ("api.example", None, b"")
    segments = url.raw_path.decode("ascii").split("/")
    assert segments[:3] == ["", "v1", "items"]
    assert segments[4:] == ["end"]
    assert unquote(segments[3]) == value.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "a\x00b", "é", "a\x7f"])
def test_a_header_argument_cannot_end_its_line(tmp_path: Path, value: str) -> None:
    text, received = called(tmp_path, document(operation("header", name="X-P")), {"X-P": value})
    assert json.loads(text)["error"].startswith("invalid_arguments: X-P: a header takes printable ASCII")
    assert received.method == ""


def test_a_cookie_argument_cannot_become_two(tmp_path: Path) -> None:
    _, received = called(tmp_path, document(operation("cookie")), {"p": "a; admin=1\r\nX: y"})
    assert received.headers["cookie"] == "p=a%3B%20admin=1%0D%0AX:%20y"


def test_arguments_too_long_for_a_url_are_refused(tmp_path: Path) -> None:
    text, _ = called(tmp_path, document(operation()), {"p": "x" * 70_000})
    assert json.loads(text)["error"] == "invalid_arguments: the arguments are too long for a URL"


# ---- servers ------------------------------------------------------------------------------------------------------


def served(content: Mapping[str, Any], reply: bytes = b"ok") -> Handler:
    """A server that gives its own document, and one reply to everything else."""

    async def handler(received: Received, writer: asyncio.StreamWriter) -> None:
        if received.target == "/openapi.json":
            text = json.dumps(content).replace("PORT", received.headers["host"].partition(":")[2])
            respond(writer, 200, text.encode(), Content_Type="application/json")
        else:
            respond(writer, 200, reply, Content_Type="text/plain")

    return handler


@pytest.mark.parametrize(
    ("servers", "target"),
    [
        ([], "/x"),
        ([{"url": ""}], "/x"),
        ([{"url": "/v2"}], "/v2/x"),
        ([{"url": "v3/"}], "/v3/x"),
        ([{"url": "http://127.0.0.1:PORT/v4?x=1#y"}], "/v4/x"),
        ([{"url": "/{v}", "variables": {"v": {"default": "v5"}}}, {"url": "http://other.example"}], "/v5/x"),
    ],
)
def test_a_server_is_taken_from_the_document(servers: list[Any], target: str) -> None:
    async def run() -> None:
        async with serving(served(document(operation(), servers=servers))) as web:
            source = await open_openapi(f"{web.url}/openapi.json")
            assert await source.call("op", {}) == "ok"
            await source.aclose()
            assert web.targets == ["/openapi.json", target]

    asyncio.run(run())


def test_a_document_from_a_url_leads_to_no_other_private_host() -> None:
    async def run() -> None:
        async with serving(answering(200, b"canary")) as other:
            content = document(operation(), servers=[{"url": other.url}])
            async with serving(served(content)) as web:
                source = await open_openapi(f"{web.url}/openapi.json")
                with pytest.raises(ToolError) as caught:
                    await source.call("op", {})
                await source.aclose()
                assert caught.value.kind == "refused_address"
                assert other.connections == 0
                source = await open_openapi(f"{web.url}/openapi.json", base_url=other.url)
                assert await source.call("op", {}) == "canary"
                await source.aclose()

    asyncio.run(run())


def test_the_servers_of_the_users_own_file_may_be_private(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(answering(200, b"ok")) as web:
            paths = operation() | {"/y": {"get": {"operationId": "other", "servers": [{"url": f"{web.url}/two"}]}}}
            spec = write(tmp_path, document(paths, servers=[{"url": f"{web.url}/one"}]))
            source = await open_openapi(spec)
            assert await source.call("op", {}) == "ok"
            assert await source.call("other", {}) == "ok"
            await source.aclose()
            assert web.targets == ["/one/x", "/two/y"]

    asyncio.run(run())


# ---- credentials --------------------------------------------------------------------------------------------------

SCHEMES = {
    "header": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "key"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "sid"},
    "bearer_scheme": {"type": "http", "scheme": "Bearer"},
    "basic_scheme": {"type": "http", "scheme": "basic"},
    "oauth": {"type": "oauth2", "flows": {}},
    "odd": {"type": "mutualTLS"},
}
CANARY = "canary:pass/word+1"


def secured(security: Any, **parameter: Any) -> dict[str, Any]:
    content = document(operation(**parameter), components={"securitySchemes": SCHEMES})
    return content if security is None else {**content, "security": security}


@pytest.mark.parametrize(
    ("scheme", "where", "sent"),
    [
        ("header", "x-key", CANARY),
        ("query", "target", "/x?key=canary%3Apass%2Fword%2B1"),
        ("cookie", "cookie", f"sid={CANARY}"),
        ("bearer_scheme", "authorization", f"Bearer {CANARY}"),
        ("basic_scheme", "authorization", "Basic Y2FuYXJ5OnBhc3Mvd29yZCsx"),
        ("oauth", "authorization", f"Bearer {CANARY}"),
        ("bearer", "authorization", f"Bearer {CANARY}"),
        ("basic", "authorization", "Basic Y2FuYXJ5OnBhc3Mvd29yZCsx"),
        ("header:X-Other", "x-other", CANARY),
        ("query:q", "target", "/x?q=canary%3Apass%2Fword%2B1"),
        ("cookie:c", "cookie", f"c={CANARY}"),
    ],
)
@pytest.mark.parametrize("status", [200, 403])
def test_a_credential_goes_where_its_scheme_says_and_never_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, where: str, sent: str, status: int
) -> None:
    monkeypatch.setenv("PET_CREDENTIAL", f"  {CANARY}\n")

    async def echo(received: Received, writer: asyncio.StreamWriter) -> None:
        respond(writer, status, f"{received.target} {dict(received.headers)}".encode(), Content_Type="text/plain")

    content = secured([{scheme: []}] if scheme in SCHEMES else None)
    text, received = called(tmp_path, content, {}, handler=echo, auth={scheme: "PET_CREDENTIAL"})
    assert (received.target if where == "target" else received.headers[where]) == sent
    assert "[masked]" in text
    assert all(secret not in text for secret in ("canary", "pass/word", "Y2FuYXJ5", "word%2B1"))


@pytest.mark.parametrize(
    ("security", "given", "expected"),
    [
        ([{"header": []}], ["header", "cookie"], {"x-key"}),
        ([{"header": [], "cookie": []}], ["header", "cookie"], {"x-key", "cookie"}),
        ([{"oauth": []}, {"cookie": []}], ["header", "cookie"], {"cookie"}),
        ([{"header": [], "oauth": []}], ["header"], set()),
        ([], ["header", "cookie"], set()),
        ([{}], ["header"], set()),
        (None, ["header", "cookie"], {"x-key", "cookie"}),
        ([{"oauth": []}], ["header:X-Key"], {"x-key"}),
    ],
)
def test_an_operation_is_sent_the_credentials_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: Any, given: list[str], expected: set[str]
) -> None:
    monkeypatch.setenv("PET_CREDENTIAL", CANARY)
    _, received = called(tmp_path, secured(security), {}, auth=dict.fromkeys(given, "PET_CREDENTIAL"))
    assert received.headers.keys() & {"x-key", "cookie"} == expected


def test_a_parameter_that_is_a_credential_is_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_CREDENTIAL", CANARY)
    content = secured([{"header": []}], place="header")
    content["paths"] = operation("header", name="x-key")
    assert list(parameters_of(opened(tmp_path, content))["properties"]) == ["x-key"]
    assert parameters_of(opened(tmp_path, content, auth={"header": "PET_CREDENTIAL"}))["properties"] == {}


@pytest.mark.parametrize(
    ("auth", "value", "words"),
    [
        (
            {"header": "PET_CREDENTIAL"},
            "",
            "variable PET_CREDENTIAL, which is to hold the secret of 'header', is not set",
        ),
        ({"header": "PET_CREDENTIAL"}, "canary\r\nX: y", "holds characters that no header can"),
        (
            {"nothing": "PET_CREDENTIAL"},
            CANARY,
            "no security scheme 'nothing'; it declares basic_scheme, bearer_scheme",
        ),
        ({"odd": "PET_CREDENTIAL"}, CANARY, "'odd' is of a kind that can't be used"),
    ],
)
def test_a_credential_that_cannot_be_used_is_one_sentence_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: dict[str, str], value: str, words: str
) -> None:
    monkeypatch.setenv("PET_CREDENTIAL", value)
    with pytest.raises(UserError) as caught:
        opened(tmp_path, secured(None), auth=auth)
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_credential_does_not_follow_a_redirect_to_another_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_CREDENTIAL", CANARY)

    async def run() -> None:
        async with serving(answering(200, b"ok")) as other:
            handler = answering(302, Location=f"http://other.example:{other.port}/")
            async with serving(handler) as web:
                spec = write(tmp_path, secured([{"header": []}]))
                source = await open_openapi(
                    spec, base_url=web.url, auth={"header": "PET_CREDENTIAL"}, resolve=_other_is_private
                )
                with pytest.raises(ToolError) as caught:
                    await source.call("op", {})
                await source.aclose()
                assert caught.value.kind == "refused_address"
                assert other.connections == 0

    asyncio.run(run())


async def _other_is_private(host: str, port: int) -> list[str]:
    return ["127.0.0.1"] if host == "other.example" else await system_resolver(host, port)


# ---- whatever comes -----------------------------------------------------------------------------------------------

RICH = document(
    {
        "/a/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {
                "operationId": "g",
                "summary": "s",
                "tags": ["t"],
                "parameters": [{"$ref": "#/components/parameters/P"}],
            },
            "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/N"}}}}},
        },
        "/f": {"$ref": "#/components/pathItems/F"},
    },
    version="3.0.3",
    servers=[{"url": "https://{r}.x.example/v1", "variables": {"r": {"default": "eu"}}}],
    security=[{"k": []}],
    components={
        "pathItems": {"F": {"put": {"requestBody": {"content": {"multipart/form-data": {"schema": OBJECT}}}}}},
        "parameters": {"P": {"name": "p", "in": "header", "schema": {**STRING, "nullable": True, "enum": ["a"]}}},
        "securitySchemes": {"k": {"type": "apiKey", "in": "query", "name": "key"}},
        "schemas": {
            "N": {
                "allOf": [{"$ref": "#/components/schemas/M"}, {"properties": {"n": {"$ref": "#/components/schemas/N"}}}]
            },
            "M": {
                "type": "object",
                "required": ["r"],
                "properties": {"r": {"readOnly": True}, "q": {"oneOf": [STRING]}},
            },
        },
    },
)


def _places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in members:
        yield (*place, key)
        yield from _places(value, (*place, key))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(["", "x", "#/components/schemas/N", "#", "http://e/", "{id}", "\ud800", "3.1.0", "string"]),
    lambda part: (
        st.lists(part, max_size=2)
        | st.dictionaries(
            st.sampled_from(["$ref", "allOf", "type", "schema", "items", "properties", "a"]), part, max_size=3
        )
    ),
    max_leaves=4,
)


@given(st.lists(st.tuples(st.sampled_from(list(_places(RICH))), JSON), min_size=1, max_size=3))
def test_a_broken_document_gives_valid_tools_or_a_reason(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    content = json.loads(json.dumps(RICH))
    for (*parents, last), value in changes:
        holder = content
        for part in parents:
            holder = holder[part] if isinstance(holder, dict) and part in holder else {}
        if isinstance(holder, dict):
            holder[last] = value
    try:
        tools, _ = tools_of(read_operations(parse_document(json.dumps(content), "it")))
    except UserError:
        return
    for tool, read in tools:
        assert schema_problem(tool.schema) is None
        try:
            assert build_request(read, {"id": 1}, ()).url.host == parse_url(read.base).host
        except ToolError as error:
            assert error.kind == "invalid_arguments"


@given(st.text(max_size=60) | st.text("{}[]:-&*!<, \n\"'ax1", max_size=60))
def test_whatever_text_is_given_it_is_a_document_or_one_sentence(text: str) -> None:
    try:
        parse_document(text, "it")
    except UserError as error:
        assert str(error).startswith("it ")
