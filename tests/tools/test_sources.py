"""What stands behind --tools finds its source, or is refused in one sentence; whatever was opened is closed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from alpha_umi.errors import UserError
from alpha_umi.tools import Observation, OpenApiOptions, execute, open_sources, open_tools
from alpha_umi.tools.source_list import listed_sources
from alpha_umi.trajectory import ToolCall

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Pets", "version": "1"},
    "servers": [{"url": "http://127.0.0.1:9"}],
    "paths": {
        "/pets": {
            "get": {"operationId": "listPets", "responses": {}},
            "post": {"operationId": "addPet", "responses": {}, "tags": ["change"]},
        }
    },
}
SCHEMAS = [{"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}}]
DICE = {"tool_name": "dice", "api_list": [{"name": "roll"}]}
MODULE = "def add(a: int, b: int) -> int: return a + b\nasync def ping() -> str: return 'pong'\n"
QUERY = "What is the price of the hotel Bobru?"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of every kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_tools.py").write_text(MODULE)
    (tmp_path / "schemas.json").write_text(json.dumps(SCHEMAS))
    (tmp_path / "dice.json").write_text(json.dumps(DICE))
    (tmp_path / "pets.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "pets.yaml").write_text(json.dumps(DOCUMENT))
    (tmp_path / "toolenv").mkdir()
    (tmp_path / "toolenv" / "dice.json").write_text(json.dumps([DICE]))
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(MODULE)
    return tmp_path


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize(
    ("spec", "names", "writes", "client"),
    [
        ("my_tools.py", {"add", "ping"}, set(), set()),
        ("my_tools", {"add", "ping"}, set(), set()),
        ("package", {"add", "ping"}, set(), set()),
        ("schemas.json", {"ping"}, set(), {"ping"}),
        ("dice.json", {"roll_for_dice"}, set(), {"roll_for_dice"}),
        ("toolenv", {"roll_for_dice"}, set(), {"roll_for_dice"}),
        ("pets.json", {"listPets", "addPet"}, {"addPet"}, set()),
        ("pets.yaml", {"listPets", "addPet"}, {"addPet"}, set()),
    ],
)
def test_every_kind_of_source_is_opened(folder: Path, spec: str, names: set[str], writes: set[str], client: set[str]):
    with open_tools([spec], QUERY) as opened:
        assert {tool.name for tool in opened.source.tools} == names
        assert opened.source.writes == writes
        assert opened.source.client == client


@pytest.mark.parametrize(("spec", "count"), [("toolworld", 5), ("toolworld:12", 12)])
def test_toolworld_offers_as_many_tools_as_are_asked_for(spec: str, count: int) -> None:
    with open_tools([spec], QUERY) as opened:
        assert len(opened.source.tools) == count
        assert opened.source.in_order == {tool.name for tool in opened.source.tools}


def test_sources_mix_and_calls_go_where_they_belong(folder: Path) -> None:
    before = children()
    with open_tools(["toolworld:2", "schemas.json", "my_tools.py"], QUERY) as opened:
        names = [tool.name for tool in opened.source.tools]
        assert names[2:] == ["ping", "add", "ping_2"]
        assert opened.source.client == {"ping"}

        def call(name: str, arguments: str) -> Observation:
            return opened.runner.run(execute(opened.source, ToolCall("c", name, arguments), timeout=60))

        assert call("ping_2", "{}") == Observation("pong")
        assert call("add", '{"a": 1, "b": 2}') == Observation("3")
        assert call("ping", "{}") == Observation("", client=True)
    assert children() <= before


def test_options_for_openapi_documents_reach_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_TOKEN", "canary")
    options = OpenApiOptions(tags=["change"], base_url="http://127.0.0.1:1/", auth=["bearer=PET_TOKEN"])
    with open_tools(["pets.yaml", "schemas.json"], QUERY, options) as opened:
        assert [tool.name for tool in opened.source.tools] == ["addPet", "ping"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("toolworlds", "no such source; give toolworld"),
        ("toolworld:", "no such source"),
        ("toolworld:x", "no such source"),
        ("toolworld:²", "no such source"),
        ("toolworld:99", "between 1 and 20 tools"),
        ("mcp:/nowhere/server", "check its command"),
        ("", "no such source"),
        ("no such thing", "no such source"),
        ("nowhere.py", "no such file or module"),
        ("nowhere.json", "nowhere.json"),
        ("nowhere.yaml", "nowhere.yaml"),
        ("broken.json", "not JSON"),
        ("other.json", "neither a list of function schemas nor ToolBench tools nor an OpenAPI document"),
        ("empty.json", "neither a list of function schemas"),
        ("empty", "no ToolBench tool documents"),
        ("ftp://example.org/openapi", "no such source"),
    ],
)
def test_what_is_no_source_is_refused(folder: Path, spec: str, says: str) -> None:
    (folder / "broken.json").write_text("{")
    (folder / "other.json").write_text('{"tools": []}')
    (folder / "empty.json").write_text("[]")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=says) as caught, open_tools([spec], QUERY):
        raise AssertionError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pair", ["bearer", "=TOKEN", "bearer="])
def test_credentials_are_given_as_the_name_of_a_variable(folder: Path, pair: str) -> None:
    with (
        pytest.raises(UserError, match=r"give SCHEME=VARIABLE"),
        open_tools(["pets.yaml"], QUERY, OpenApiOptions(auth=[pair])),
    ):
        raise AssertionError


OWN = """
- schemas.json
- source: pets.yaml
  only: [listPets]
  tag: []
  base_url: http://127.0.0.1:2
  auth: {header:X-Key: OTHER_TOKEN}
- pets.json
"""


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_list_of_sources_has_options_for_each_document(
    folder: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PET_TOKEN", "canary-1")
    monkeypatch.setenv("OTHER_TOKEN", "canary-2")
    (folder / "list").write_text(OWN if form == "yaml" else json.dumps(yaml.safe_load(OWN)))
    options = OpenApiOptions(tags=["change"], base_url="http://127.0.0.1:1/", auth=["bearer=PET_TOKEN"])
    listed = list(listed_sources(["my_tools.py", "@list"], options))
    assert [one.spec for one in listed] == ["my_tools.py", "schemas.json", "pets.yaml", "pets.json"]
    own = OpenApiOptions(["listPets"], [], "http://127.0.0.1:2", ["header:X-Key=OTHER_TOKEN"])
    assert [one.openapi for one in listed] == [options, options, own, options]
    with open_tools(["@list"], QUERY, options) as opened:
        assert [tool.name for tool in opened.source.tools] == ["ping", "listPets", "addPet"]


def test_what_an_entry_does_not_say_the_command_line_does(folder: Path) -> None:
    (folder / "list").write_text("- source: pets.yaml\n  base_url: http://127.0.0.1:2\n")
    with open_tools(["@list"], QUERY, OpenApiOptions(tags=["change"])) as opened:
        assert [tool.name for tool in opened.source.tools] == ["addPet"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no list of tool sources"),
        ("source: pets.yaml", "no list of tool sources"),
        ("- [", "list, line 1: neither YAML nor JSON"),
        ("- 3", "entry 1: Input should be an object"),
        ("- pets.yaml\n- {source: pets.yaml, only: listPets}", "entry 2: only: Input should be a valid list"),
        ("- {source: pets.yaml, tags: [x]}", "entry 1: tags: Extra inputs are not permitted"),
        ("- {only: [listPets]}", "entry 1: source: Field required"),
        ("- '@list'", "can't name another"),
        ("- {source: schemas.json, only: [ping]}", "list, entry 1: only, tag, auth and base_url are for OpenAPI"),
        ("- {source: pets.yaml, auth: {bearer: ''}}", "give SCHEME=VARIABLE"),
        ("[" * 5000, "nested too deeply"),
        ("\x00", "neither YAML nor JSON"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_sentence(folder: Path, text: str, says: str) -> None:
    (folder / "list").write_text(text)
    with pytest.raises(UserError, match=says) as caught, open_tools(["@list"], QUERY):
        raise AssertionError
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: can't be read"), open_tools(["@nowhere.yaml"], QUERY):
        raise AssertionError


def test_what_was_opened_is_closed_when_the_next_cannot_be(folder: Path) -> None:
    before = children()
    with pytest.raises(UserError, match="nowhere"):
        asyncio.run(open_sources(["my_tools.py", "nowhere.py"], QUERY))
    assert children() <= before


def test_whatever_ends_the_block_the_sources_are_closed(folder: Path) -> None:
    before = children()
    with pytest.raises(KeyboardInterrupt), open_tools(["my_tools.py"], QUERY):
        assert children() > before
        raise KeyboardInterrupt
    assert children() <= before
