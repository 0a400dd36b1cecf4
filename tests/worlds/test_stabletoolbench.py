"""StableToolBench's own queries: loaded, run against a scripted simulator, judged by a scripted judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from alpha_umi.agent import ChosenStrategy, React
from alpha_umi.cli import app
from alpha_umi.worlds import catalogue
from alpha_umi.worlds.client import WorldClient
from alpha_umi.worlds.documents import Documents
from alpha_umi.worlds.episodes import EpisodeStore
from alpha_umi.worlds.queries import Query, read_stabletoolbench
from alpha_umi.worlds.running import Shard, run_world
from tests.integration.provider import Body, chat, providing
from tests.worlds.scripted import ROOM, agent, serving_world, simulated

SETS = {"G1_instruction": 163, "G1_category": 153}


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    return real_data / "stabletoolbench" / "solvable_queries"


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return [folder / "test_instruction" / f"{name}.json" for name in SETS]


@pytest.fixture(scope="module")
def queries(files: list[Path]) -> list[Query]:
    return read_stabletoolbench(files)


@pytest.fixture(scope="module")
def server(files: list[Path]) -> Iterator[str]:
    with providing(simulated) as provider, serving_world(None, provider.base_url, *files) as url:
        yield url


def test_the_queries_are_those_of_the_published_ids(queries: list[Query], folder: Path) -> None:
    for name, count in SETS.items():
        ids = json.loads((folder / "test_query_ids" / f"{name}.json").read_text())
        found = [query.id for query in queries if query.split == name]
        assert len(found) == count and set(found) == set(ids)


def test_every_tool_that_is_shown_has_a_documented_api(queries: list[Query], files: list[Path]) -> None:
    documents = Documents(files)
    for query in queries:
        assert query.tools and {tool.name for tool in query.tools} == set(query.apis)
        assert all(documents.get(name) for name in query.apis.values())


def evaluate(files: list[Path], url: str, folder: Path, count: int, shard: str = "1/1") -> dict[str, bytes]:
    world = catalogue.stabletoolbench(files, WorldClient(url))
    world = world.of({name: tasks[:count] for name, tasks in world.sets.items()})
    with EpisodeStore(folder, world.settings) as store:
        run_world(agent(), world, store, ChosenStrategy(React(), ROOM), shard=Shard.read(shard))
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


def judge_pass(body: Body) -> Body:
    """Solved or not by the answer's first letter."""
    name = body["tool_choice"]["function"]["name"]
    solved = "It is 0" in body["messages"][0]["content"]
    return chat(None, (name, json.dumps({"reason": "so", "answer_status": "Solved" if solved else "Unsolved"})))


def judged(url: str, folder: Path, ids: Path, out: Path) -> bytes:
    judge = out.with_suffix(".yaml")
    judge.write_text(yaml.safe_dump({"judge": {"base_url": url, "model": "judge"}}))
    arguments = ["--answers", f"agent={folder}", "--ids", ids, "--judge", judge, "--votes", "1", "--json", out]
    cache = ["--cache", out.with_suffix(".sqlite")]
    result = CliRunner().invoke(app, ["eval", "judge", "pass", *map(str, [*arguments, *cache])])
    assert result.exit_code == 0, result.output
    return out.read_bytes()


@pytest.mark.parametrize("count", [6, pytest.param(1000, marks=pytest.mark.slow)])
def test_two_runs_one_of_them_in_shards_and_their_verdicts_are_byte_equal(
    files: list[Path], server: str, folder: Path, tmp_path: Path, count: int
) -> None:
    whole = evaluate(files, server, tmp_path / "whole", count)
    for shard in ("2/2", "1/2"):
        parts = evaluate(files, server, tmp_path / "parts", count, shard)
    assert parts == whole
    lines = {name: content.count(b"\n") for name, content in whole.items()}
    assert lines == {f"live-{name}-episodes.jsonl": min(count, most) for name, most in SETS.items()}
    ids = folder / "test_query_ids"
    with providing(judge_pass) as judge:
        verdicts = [
            judged(judge.base_url, tmp_path / name, ids, tmp_path / f"{name}.json") for name in ("whole", "parts")
        ]
    assert verdicts[0] == verdicts[1]
    sets = json.loads(verdicts[0])["sets"]
    assert all(0 < sets[name]["agent"]["pass_rate"]["value"] < 1 for name in SETS) or count < 100
