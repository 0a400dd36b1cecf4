"""`umi tools` lists what sources offer, and what of them it can't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.errors import UserError

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "servers": [{"url": "http://127.0.0.1:9"}],
    "paths": {
        "/pets": {
            "get": {"operationId": "listPets", "summary": "Lists [bold]pets.\x1b[2J\nAll of them."},
            "post": {"operationId": "addPet"},
        },
        "/out": {"get": {"parameters": [{"$ref": "http://elsewhere/\x1b[2J"}]}},
    },
}
SCHEMAS = [{"name": "ping", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pets.json").write_text(json.dumps(DOCUMENT))
    Path("schemas.json").write_text(json.dumps(SCHEMAS))


def umi(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tools", *arguments], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_tools_are_listed_with_what_a_call_does_and_what_is_left_out() -> None:
    lines = [line.strip() for line in umi("pets.json", "schemas.json").splitlines()]
    rows = [line.split(maxsplit=1) for line in lines]
    assert ["listPets", "Lists [bold]pets. All of them."] in rows
    assert ["addPet", "writes"] in rows
    assert ["ping", "is handed out"] in rows
    assert "left out: 1" in lines
    assert lines[-1].startswith("GET /out: $ref ") and "\x1b" not in lines[-1]


def test_a_script_is_given_the_same_as_json() -> None:
    value = json.loads(umi("schemas.json", "pets.json", "--only", "addPet", "--json"))
    assert value["tools"][0] == {
        "name": "ping", "description": "", "parameters": SCHEMAS[0]["parameters"], "writes": False, "client": True,
    }  # fmt: skip
    assert [(tool["name"], tool["writes"]) for tool in value["tools"][1:]] == [("addPet", True)]
    assert value["left_out"] == []  # it was not among those to keep
    (out,) = json.loads(umi("pets.json", "--json"))["left_out"]
    assert out["name"] == "GET /out" and "leads out of the document" in out["reason"]


def test_toolworld_offers_what_fits_a_query() -> None:
    names = [tool["name"] for tool in json.loads(umi("toolworld:1", "--query", "price of a hotel", "--json"))["tools"]]
    assert len(names) == 1 and "price" in names[0]
    assert len(json.loads(umi("toolworld", "--json"))["tools"]) == 5


def test_an_operation_that_is_asked_for_and_left_out_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"GET /out can't become a tool: \$ref .* leads out of the document"):
        umi("pets.json", "--only", "GET /out")


def test_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="no such source"):
        umi("nothing")
