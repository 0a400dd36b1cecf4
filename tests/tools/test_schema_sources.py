"""Function schemas and ToolBench documents: tools that are only described, as their files have them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from alpha_umi.data.function_chains import FINISH
from alpha_umi.errors import DataError
from alpha_umi.tools.schema import SchemaSource, read_schemas
from alpha_umi.tools.toolbench import looks_like_toolbench, read_toolbench
from alpha_umi.trajectory import schema_problem


def written(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


# ---- function schemas -----------------------------------------------------------------------------------------------


def test_schemas_wrapped_and_bare_are_kept_as_they_are_written(tmp_path: Path) -> None:
    bare = '{"name": "ping",  "parameters": {"type":"object", "properties": {}}, "strict": true}'
    text = f'[{{"type": "function", "function": {bare}}},\n {bare.replace("ping", "pöng")}]'
    tools = read_schemas(written(tmp_path / "tools.json", text))
    assert [tool.schema for tool in tools] == [bare, bare.replace("ping", "pöng")]
    assert all(not tool.extra for tool in tools)


def test_nobody_here_executes_a_described_tool(tmp_path: Path) -> None:
    source = SchemaSource(read_schemas(written(tmp_path / "tools.json", [{"name": "ping"}])))
    assert source.client == {"ping"}
    with pytest.raises(RuntimeError, match="whoever runs the agent"):
        asyncio.run(source.call("ping", {}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("3", "holds no list"),
        ('[{"description": "nameless"}]', "no function object"),
        ('[{"name": "f", "parameters": {"type": 3}}]', "no JSON Schema"),
        ('[{"type": "retrieval", "function": {"name": "f"}}]', "not of type function"),
        ('[{"name": "f", "parameters": {"properties": {"x": {"maximum": NaN}}}}]', "'f' is no JSON: .*maximum: NaN"),
        ('[{"name": "f", "parameters": {"default": {"x": 1e999}}}]', "Infinity is no finite number"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_what_is_no_list_of_schemas_is_refused_by_the_files_name(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read_schemas(written(tmp_path / "tools.json", text))
    assert "tools.json" in str(caught.value)


# ---- ToolBench ------------------------------------------------------------------------------------------------------

DICE = {
    "product_id": "api_1",
    "tool_description": "Rolls dice.",
    "home_url": "https://example.org",
    "name": "Dice Roll Simulator",
    "title": "Dice",
    "tool_name": "Dice Roll Simulator",
    "score": {"avgLatency": 1},
    "api_list": [
        {
            "name": "Custom dice rolls",
            "url": "https://example.org/roll",
            "description": "Custom dice rolls of any kind.",
            "method": "GET",
            "required_parameters": [
                {"name": "id", "type": "NUMBER", "description": "", "default": "6"},
                {"name": "Number-of sides", "type": "ENUM", "description": "x" * 300, "default": ""},
            ],
            "optional_parameters": [{"name": "fair", "type": "BOOLEAN", "description": "Whether", "default": True}],
            "statuscode": 200,
        },
        {"name": "3 Dice!", "description": None},
    ],
}


def test_a_document_of_the_tool_environment_becomes_toolbenchs_functions(tmp_path: Path) -> None:
    custom, three = read_toolbench(written(tmp_path / "dice.json", DICE))
    name = "custom_dice_rolls_for_dice_roll_simulator"
    assert custom.function == {
        "name": name,
        "description": 'This is the subfunction for tool "dice_roll_simulator", you can use this tool.'
        f'The description of this function is: "{name} of any kind."',
        "parameters": {
            "type": "object",
            "properties": {
                "is_id": {"type": "integer", "description": "", "example_value": "6"},
                "number_of_sides": {"type": "string", "description": "x" * 256},
                "fair": {"type": "boolean", "description": "Whether", "example_value": True},
            },
            "required": ["is_id", "number_of_sides"],
            "optional": ["fair"],
        },
    }
    assert three.name == "get_3_dice_for_dice_roll_simulator"


def test_long_names_keep_their_end(tmp_path: Path) -> None:
    document = {"tool_name": "collection", "api_list": [{"name": "very long " * 20}]}
    (tool,) = read_toolbench(written(tmp_path / "long.json", document))
    assert len(tool.name) == 64
    assert tool.name.endswith("long_for_collection")


def test_a_folder_is_read_with_all_its_categories_and_each_tool_once(tmp_path: Path) -> None:
    for category in ("Gaming", "Sports"):
        (tmp_path / category).mkdir()
        written(tmp_path / category / "dice.json", DICE)
    written(tmp_path / "Sports" / "ball.json", {"tool_name": "ball", "api_list": [{"name": "throw"}]})
    names = [tool.name for tool in read_toolbench(tmp_path)]
    assert names == [
        "custom_dice_rolls_for_dice_roll_simulator", "get_3_dice_for_dice_roll_simulator", "throw_for_ball",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "says"),
    [({"api_list": []}, "no ToolBench tool documents"), ({"tools": []}, "api_list"), ([], "no ToolBench")],
)
def test_what_is_no_tool_document_is_refused(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_toolbench(written(tmp_path / "x.json", value))


def test_documents_are_recognised() -> None:
    assert looks_like_toolbench(DICE)
    assert looks_like_toolbench([{"api_list": [], "query": "x"}])
    assert not any(map(looks_like_toolbench, ([], {}, 3, [{"name": "f"}], {"api_list": 3})))


def test_published_instructions_get_the_functions_that_were_shown_to_the_published_models(
    real_data: Path, tmp_path: Path
) -> None:
    home = real_data / "stabletoolbench"
    instructions = json.loads((home / "solvable_queries/test_instruction/G1_instruction.json").read_text("utf-8"))
    by_id = {record["query_id"]: record for record in instructions}
    compared = {}
    for answer in sorted((home / "data_example/answer").rglob("*.json")):
        shown = json.loads(answer.read_text("utf-8"))["answer_generation"]["function"]
        record = by_id[int(answer.name.split("_")[0])]
        ours = [tool.function for tool in read_toolbench(written(tmp_path / "record.json", record))]
        assert [function["name"] for function in shown] == [*(function["name"] for function in ours), FINISH]
        compared |= {theirs["name"]: (mine, theirs) for mine, theirs in zip(ours, shown, strict=False)}
    assert len(compared) == 23
    # there the published function lacks the API's only parameter, an optional one
    different = [name for name, (mine, theirs) in compared.items() if mine != theirs]
    assert different == ["get_channel_links_for_kick_com_api_kick_api"]


def test_every_published_document_becomes_tools_with_sound_schemas(real_data: Path) -> None:
    files = [*(real_data / "toolbench/instruction").glob("G*.json"),
             *(real_data / "stabletoolbench/solvable_queries/test_instruction").glob("*.json")]  # fmt: skip
    tools = [tool for file in sorted(files) for tool in read_toolbench(file)]
    assert len(tools) > 1000
    assert [tool.name for tool in tools if schema_problem(tool.schema) is not None] == []
    assert max(len(tool.name) for tool in tools) == 64
