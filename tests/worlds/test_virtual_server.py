"""The virtual API server over real HTTP: StableToolBench's protocol, its cache, a scripted simulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from alpha_umi.errors import DataError
from alpha_umi.worlds.protocol import ANSWERED_BY_HEADER, FAILURE_HEADER
from alpha_umi.worlds.published_cache import PublishedCache
from tests.integration.provider import Body, Provider, chat, failure, providing
from tests.worlds.scripted import queries_file, serving_world, simulated

HTTP = httpx2.Client(trust_env=False, verify=False)  # loopback only
CALL = {
    "category": "News_Media", "tool_name": "daily_news", "api_name": "top_stories",
    "tool_input": '{"topic": "a", "n": 1}', "strip": "truncate", "toolbench_key": "",
}  # fmt: skip


@pytest.fixture
def simulator() -> Iterator[Provider]:
    with providing(simulated) as provider:
        yield provider


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return queries_file(tmp_path, 2)


def post(url: str, **more: Any) -> httpx2.Response:
    return HTTP.post(f"{url}/virtual", json={**CALL, **more})


def told(url: str, **more: Any) -> tuple[Any, str | None]:
    """The body, and the kind of failure."""
    said = post(url, **more)
    assert said.status_code == 200, said.text
    return said.json(), said.headers.get(FAILURE_HEADER)


def test_a_call_is_simulated_once_however_its_arguments_and_names_are_written(
    simulator: Provider, documents: Path
) -> None:
    spellings: list[dict[str, Any]] = [
        {},
        {"tool_input": {"n": 1, "topic": "a"}},
        {"category": "News, Media", "tool_name": "Daily News", "api_name": "Top Stories"},
        {"tool_name": "daily_news_for_News_Media", "api_name": "top_stories_for_daily_news"},
    ]
    with serving_world(None, simulator.base_url, documents) as url:
        said = [post(url, **more) for more in spellings]
    assert len({one.content for one in said}) == 1
    assert said[0].json()["error"] == "" and said[0].headers[ANSWERED_BY_HEADER] == "simulator"
    assert len(simulator.bodies) == 1


def test_equal_calls_at_one_time_are_simulated_once(simulator: Provider, documents: Path) -> None:
    with serving_world(None, simulator.base_url, documents) as url, ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: post(url).content, range(8)))
    assert len(set(said)) == 1 and len(simulator.bodies) == 1


def test_what_was_answered_is_replayed_without_a_simulator(
    simulator: Provider, documents: Path, tmp_path: Path
) -> None:
    replies = tmp_path / "world.sqlite"
    with serving_world(replies, simulator.base_url, documents) as url:
        first = post(url)
    with serving_world(replies, None) as url:
        assert post(url).content == first.content
        assert told(url, tool_input={"topic": "b"})[1] == "unknown_api"
    with serving_world(replies, None, documents) as url:
        assert told(url, tool_input={"topic": "b"})[1] == "not_recorded"
    assert len(simulator.bodies) == 1


def test_the_simulator_reads_documentation_and_published_examples_and_never_its_own_answers(
    simulator: Provider, documents: Path, tmp_path: Path
) -> None:
    cache = published(tmp_path, {"{'topic': 'old'}": {"error": "", "response": {"of": "yore"}}})
    with serving_world(None, simulator.base_url, documents, cache=cache) as url:
        told(url)
        told(url, tool_input={"topic": "b"})
    prompts = [body["messages"][1]["content"] for body in simulator.bodies]
    assert all("Gets Top Stories." in prompt and "yore" in prompt for prompt in prompts)
    assert prompts[0].rpartition("Call:")[0] == prompts[1].rpartition("Call:")[0]
    assert simulator.bodies[0]["temperature"] == 0


def published(folder: Path, entries: Any) -> Path:
    """StableToolBench's cache with one file."""
    path = folder / "cache" / "News_Media" / "daily_news_for_News_Media" / "top_stories.json"
    path.parent.mkdir(parents=True)
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return folder / "cache"


def test_the_published_cache_answers_whatever_the_order_of_arguments_and_its_failures_are_typed(tmp_path: Path) -> None:
    cache = published(tmp_path, {
        "{'n': 1, 'topic': 'a'}": {"error": "", "response": "status 500 is a number in this text"},
        "{'topic': 'b'}": {"error": "Too many requests", "response": ""},
        "no dictionary": {"error": "", "response": ""},
        "{'topic': {1, 2}}": {"error": "", "response": ""},
    })  # fmt: skip
    with serving_world(None, None, cache=cache) as url:
        assert told(url) == ({"error": "", "response": "status 500 is a number in this text"}, None)
        assert told(url, tool_input={"topic": "b"}) == ({"error": "Too many requests", "response": ""}, "api_error")
        assert told(url, tool_input="")[1] == "not_recorded"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"{}": []}'])
def test_a_published_file_that_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, content: str) -> None:
    with serving_world(None, None, cache=published(tmp_path, content)) as url:
        assert told(url)[1] == "unknown_api"


def test_a_cache_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        PublishedCache(tmp_path / "none")


@pytest.mark.parametrize("given", ["[1]", "{", "NaN", '{"a": NaN}', "[" * 100000])
def test_an_input_that_is_no_object_is_a_typed_failure(given: str) -> None:
    with serving_world(None, None) as url:
        assert told(url, tool_input=given)[1] == "invalid_input"


def test_names_cannot_lead_out_of_the_cache(tmp_path: Path) -> None:
    cache = published(tmp_path, {"{}": {"error": "", "response": "secret"}})
    (cache / "inner").mkdir()
    with serving_world(None, None, cache=cache / "inner") as url:
        for category in ("../News_Media", "..", "..\\News_Media", "/News_Media", "News_Media\0"):
            assert told(url, category=category, tool_input={})[1] == "unknown_api"


def test_an_unreadable_simulator_is_asked_again_and_then_recorded_as_a_failure(documents: Path) -> None:
    said = iter(["no JSON", '{"response": NaN}', '{"error": 3, "response": ""}', '```json\n{"response": [1]}\n```'])
    with providing(lambda body: chat(next(said))) as provider, serving_world(None, provider.base_url, documents) as url:
        assert told(url)[1] == "simulator_unreadable"
        assert told(url)[1] == "simulator_unreadable"
        assert len(provider.bodies) == 3 and len({body["seed"] for body in provider.bodies}) == 3
        assert told(url, tool_input={}) == ({"error": "", "response": [1]}, None)


def test_what_the_simulator_calls_an_error_is_the_apis_failure(documents: Path) -> None:
    answer = json.dumps({"error": "no such topic", "response": ""})
    with providing(lambda body: chat(answer)) as provider, serving_world(None, provider.base_url, documents) as url:
        assert told(url) == ({"error": "no such topic", "response": ""}, "api_error")


def test_a_simulator_that_fails_is_no_reply_and_is_not_recorded(documents: Path, tmp_path: Path) -> None:
    works: list[bool] = []

    def answer(body: Body) -> Any:
        return simulated(body) if works else failure(500, "down, and the key is secret-key")

    with (
        providing(answer) as provider,
        serving_world(tmp_path / "world.sqlite", provider.base_url, documents) as url,
    ):
        said = post(url)
        assert said.status_code == 502 and "secret" not in said.text
        works.append(True)
        assert told(url)[1] is None


def test_requests_that_are_none_are_refused() -> None:
    with serving_world(None, None) as url:
        assert HTTP.post(f"{url}/virtual", json={"category": "x"}).status_code == 400
        assert HTTP.post(f"{url}/virtual", content=b"{").status_code == 415
        large = HTTP.post(f"{url}/virtual", json={**CALL, "tool_input": "x" * (1 << 20)})
        assert large.status_code == 413
        foreign = HTTP.post(f"{url}/virtual", json=CALL, headers={"Host": "evil.example"})
        assert foreign.status_code == 403


def test_with_a_key_only_those_who_have_it_are_answered() -> None:
    with serving_world(None, None, key="k") as url:

        def status(**headers: str) -> int:
            return HTTP.post(f"{url}/virtual", json=CALL, headers=headers).status_code

        assert status() == status(toolbench_key="other") == 401
        assert status(toolbench_key="k") == status(Authorization="Bearer k") == 200
        assert HTTP.get(f"{url}/health").json()["answered"] == {"nobody": 2}
