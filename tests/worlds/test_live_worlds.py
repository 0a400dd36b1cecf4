"""Live runs in worlds without a checker: complete, durable, and the same however they are split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from alpha_umi.agent import ChosenStrategy, Dfsdt, React
from alpha_umi.engines.base import Sampling
from alpha_umi.errors import DataError, UserError
from alpha_umi.judges.answers import read_answers, read_sets
from alpha_umi.tools import OpenApiOptions
from alpha_umi.worlds import catalogue
from alpha_umi.worlds.client import WorldClient
from alpha_umi.worlds.counts import counts
from alpha_umi.worlds.episodes import EpisodeStore, merge
from alpha_umi.worlds.queries import read_own, read_stabletoolbench
from alpha_umi.worlds.running import Shard, World, run_world
from tests.integration.provider import providing
from tests.worlds.scripted import ROOM, agent, queries_file, serving_world, simulated

REACT = ChosenStrategy(React(), ROOM)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def queries(here: Path) -> Path:
    return queries_file(here, 12)


@pytest.fixture(scope="module")
def server(here: Path, queries: Path) -> Iterator[str]:
    with providing(simulated) as provider, serving_world(None, provider.base_url, queries) as url:
        yield url


def evaluated(
    url: str, queries: Sequence[Path], folder: Path | None, shard: str = "1/1", chosen: ChosenStrategy = REACT,
    concurrency: int = 4, **settings: str,
) -> dict[str, Any]:  # fmt: skip
    world = catalogue.stabletoolbench(queries, WorldClient(url, retries=0))
    return run(world, folder, shard, chosen, concurrency, **settings)


def run(
    world: World, folder: Path | None, shard: str = "1/1", chosen: ChosenStrategy = REACT, concurrency: int = 4,
    **settings: str,
) -> dict[str, Any]:  # fmt: skip
    with EpisodeStore(folder, {**world.settings, **settings}) as store:
        run_world(agent(), world, store, chosen, concurrency=concurrency, shard=Shard.read(shard))
        return {
            split: counts([one.figures for one in store.read(split)], len(tasks))
            for split, tasks in world.sets.items()
        }  # fmt: skip


def exported(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


@pytest.fixture(scope="module")
def whole(server: str, queries: Path, here: Path) -> dict[str, bytes]:
    evaluated(server, [queries], here / "whole")
    return exported(here / "whole")


def test_every_query_is_run_and_counted(server: str, queries: Path, tmp_path: Path) -> None:
    found = evaluated(server, [queries], tmp_path)["G1_made"]
    assert (found["episodes"], found["queries"]) == (12, 12)
    assert found["stop_reasons"] == {"answered": 10, "gave_up": 2}
    assert found["answered"] == 10 / 12 and found["mean_calls"] == 2.0 and found["failed_calls"] == {}
    assert found["ci95"]["answered"][0] < 10 / 12 < found["ci95"]["answered"][1]


def test_the_export_is_what_judges_read(whole: dict[str, bytes], here: Path) -> None:
    (name,) = whole
    answers = read_answers(here / "whole" / name)
    assert list(answers) == [str(100 + n) for n in range(12)]
    first = answers["100"]
    assert first.query == "What is new about 0?" and first.finished and first.solved is None
    assert [tool["name"] for tool in first.tools] == ["top_stories_for_daily_news", "is_id_for_daily_news"]
    response = json.loads(first.calls[0]["response"])
    assert response["error"] == "" and len(response["response"]["of"]) == 12
    assert answers["104"].gave_up
    assert list(read_sets(here / "whole")) == ["G1_made"]


@pytest.mark.parametrize("concurrency", [1, 12])
def test_two_runs_are_byte_equal_whatever_runs_side_by_side(
    server: str, queries: Path, whole: dict[str, bytes], tmp_path: Path, concurrency: int
) -> None:
    evaluated(server, [queries], tmp_path, concurrency=concurrency)
    assert exported(tmp_path) == whole


def test_shards_in_one_folder_come_to_the_same_bytes(
    server: str, queries: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for shard in ("3/3", "1/3", "2/3"):
        found = evaluated(server, [queries], tmp_path, shard)
    assert found["G1_made"]["episodes"] == 12
    assert exported(tmp_path) == whole


def test_shards_of_several_folders_are_merged_to_the_same_bytes(
    server: str, queries: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    for number, part in enumerate(parts, 1):
        evaluated(server, [queries], part, f"{number}/2")
    assert merge(tmp_path / "all", parts) == {"G1_made": 12}
    assert exported(tmp_path / "all") == whole


def test_a_finished_run_asks_nobody(server: str, queries: Path, tmp_path: Path) -> None:
    first = evaluated(server, [queries], tmp_path)
    assert evaluated("http://127.0.0.1:9", [queries], tmp_path) == first


def test_a_server_that_is_gone_ends_the_run_and_what_was_finished_is_not_repeated(
    queries: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Sampling of the simulator aside, the same calls get the same replies, so the end is the same too."""
    with providing(simulated) as provider:
        with serving_world(tmp_path / "world.sqlite", provider.base_url, queries) as url:
            evaluated(url, [queries], tmp_path / "run", "1/2")
        asked = len(provider.bodies)
        with pytest.raises(UserError, match="give the same command again"):
            evaluated(url, [queries], tmp_path / "run")
        assert len(exported(tmp_path / "run")["live-G1_made-episodes.jsonl"].splitlines()) == 6
        with serving_world(tmp_path / "world.sqlite", provider.base_url, queries) as url:
            evaluated(url, [queries], tmp_path / "run")
        assert asked < len(provider.bodies) <= 16  # there are that many different calls, and each is simulated once
    assert exported(tmp_path / "run") == whole


def test_a_world_can_be_run_again(server: str, queries: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    world = catalogue.stabletoolbench([queries], WorldClient(server, retries=0))
    for name in ("a", "b"):
        run(world, tmp_path / name)
        assert exported(tmp_path / name) == whole


def test_other_settings_are_not_mixed_in(server: str, queries: Path, tmp_path: Path) -> None:
    evaluated(server, [queries], tmp_path, system="one")
    with pytest.raises(UserError, match=r"episodes of another run \(system differ\)"):
        evaluated(server, [queries], tmp_path, system="two")
    with pytest.raises(UserError, match="queries G1_made"):
        evaluated(server, [queries_file(tmp_path, 3)], tmp_path)


def test_a_search_is_as_repeatable_as_one_path(server: str, queries: Path, tmp_path: Path) -> None:
    chosen = ChosenStrategy(Dfsdt(), ROOM, Sampling(0.5))
    for name, concurrency in (("a", 1), ("b", 7)):
        evaluated(server, [queries], tmp_path / name, chosen=chosen, concurrency=concurrency)
    assert exported(tmp_path / "a") == exported(tmp_path / "b")


def test_an_api_that_fails_is_an_observation_of_its_kind(queries: Path, tmp_path: Path) -> None:
    with serving_world(None, None, queries) as url:
        found = evaluated(url, [queries], tmp_path)["G1_made"]
    assert found["episodes"] == 12 and found["failed_calls"] == {"not_recorded": 24}


def test_own_tools_are_opened_for_each_episode(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_text(
        'SEEN = []\n\n\ndef count(about: str) -> int:\n    """Counts its calls."""\n'
        "    SEEN.append(about)\n    return len(SEEN)\n"
    )
    asked = tmp_path / "mine.jsonl"
    asked.write_text('{"query": "first"}\n"second"\n{"instruction": "third", "id": "third"}\n')
    run(catalogue.own([asked], [str(tmp_path / "counter.py")], OpenApiOptions()), tmp_path / "run")
    answers = read_answers(tmp_path / "run" / "live-mine-episodes.jsonl")
    assert list(answers) == ["0", "1", "third"]
    said = {
        name: [one["response"] for one in answer.calls if one["name"] == "count"] for name, answer in answers.items()
    }
    assert said == {"0": ["1"], "1": ["1", "2"], "third": ["1", "2", "3"]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("[]", "no queries"), ('[{"query": "x"}]', "api_list"), ('[{"query": "", "api_list": [{}]}]', "query")],
)
def test_what_is_no_file_of_queries_is_one_sentence(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(content)
    with pytest.raises(DataError, match=complaint):
        read_stabletoolbench([path])


def test_ids_and_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "a", "id": 1}\n{"query": "b", "id": "1"}\n')
    with pytest.raises(UserError, match="there twice in q"):
        read_own([path])
    with pytest.raises(UserError, match="the same name"):
        read_own([path, tmp_path / "other" / "q.jsonl"][:1] * 2)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give I/N"):
        Shard.read(text)
