"""`umi eval judge` with a judge behind a real server on a loopback port."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from alpha_umi.cli import app
from alpha_umi.errors import UserError
from alpha_umi.judges.answers import Answer
from tests.integration.provider import Body, Provider, chat, failure, providing
from tests.judges.runs import answered, call, run, told

KEY = "secret-of-the-judge"
Umi = Callable[..., Result]


def judging(body: Body) -> Body:
    """Solved if the answer says yes; of two, the one that says more."""
    name = body["tool_choice"]["function"]["name"]
    prompt = body["messages"][0]["content"]
    if name == "select_better_answer":
        first, second = re.findall(r"<run_\d>\n(.*?)\n</run", prompt, re.DOTALL)
        said: dict[str, Any] = {"index": int(len(second) > len(first))}
    else:
        answer = re.search(r"<(?:answer|run)>\n(.*)\n</", prompt, re.DOTALL)
        said = {"answer_status": "Solved" if answer and "yes" in answer[1] else "Unsolved"}
    return chat(None, (name, json.dumps({"reason": "it says so", **said})))


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing(judging) as served:
        yield served


@pytest.fixture
def umi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Umi:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return lambda *arguments: CliRunner().invoke(app, ["eval", "judge", *arguments], env={"COLUMNS": "200"})


def judge_file(base_url: str, **more: Any) -> str:
    endpoint = {"base_url": base_url, "model": "judge", "api_key_env": "JUDGE_KEY", "max_retries": 0}
    Path("judge.yaml").write_text(yaml.safe_dump({"judge": endpoint, **more}))
    return "judge.yaml"


def answers_file(name: str, *answers: Answer) -> str:
    content = {
        answer.query_id: {"query": answer.query, "available_tools": list(answer.tools), "answer": dict(answer.record)}
        for answer in answers
    }
    Path(name).write_text(json.dumps(content))
    return name


@pytest.fixture
def files(umi: Umi) -> list[str]:
    """Two systems' answers to four queries; each lacks one."""
    first = answers_file("a.json", answered("1", "yes"), answered("2", "no"), answered("3", "yes, it is so"))
    second = answers_file("b.json", answered("1", "yes"), answered("2", "yes"), answered("4", "no"))
    return ["--answers", f"first={first}", "--answers", f"second={second}"]


def read(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def test_pass_prints_rates_and_writes_verdicts_with_what_they_cost(
    umi: Umi, provider: Provider, files: list[str]
) -> None:
    judge = judge_file(provider.base_url, price={"prompt": 1000000, "completion": 0})
    result = umi("pass", *files, "--judge", judge, "--votes", "2", "--json", "pass.json")
    assert result.exit_code == 0, result.output
    written = read("pass.json")
    rates = {name: one["pass_rate"]["value"] for name, one in written["sets"]["a"].items()}
    assert rates == {"first": 0.5, "second": 0.5}
    assert written["sets"]["a"]["first"]["basis"] == {"judge": 3, "missing": 1}
    assert written["differences"]["a"]["second"]["value"] == 0.0
    assert written["verdicts"]["a"]["first"]["1"]["reasons"] == ["it says so", "it says so"]
    # the two systems' answers to the first query are the same, and so is the question
    assert written["cost"]["asked"] == 12
    assert written["cost"]["money"] == written["cost"]["prompt_tokens"] == 12 * 50
    assert "50.0" in result.output and "not measured" in result.output
    body = provider.bodies[0]
    assert (body["temperature"], body["tool_choice"]["type"], body["model"]) == (0.2, "function", "judge")
    assert KEY not in result.output + Path("pass.json").read_text()


def test_a_second_run_sends_nothing_and_writes_the_same_bytes(umi: Umi, provider: Provider, files: list[str]) -> None:
    judge = judge_file(provider.base_url)
    written = []
    for _ in range(2):
        assert umi("win", *files, "--reference", "first", "--judge", judge, "--json", "win.json").exit_code == 0
        written.append((Path("win.json").read_bytes(), len(provider.bodies)))
    assert written[0] == written[1]


def test_win_goes_by_labels_then_by_the_judge_and_ties_what_is_the_same(
    umi: Umi, provider: Provider, files: list[str]
) -> None:
    judge = judge_file(provider.base_url)
    assert umi("pass", *files, "--judge", judge, "--json", "pass.json").exit_code == 0
    before = len(provider.bodies)
    given = ["--reference", "first", "--judge", judge, "--labels", "pass.json", "--json", "win.json"]
    result = umi("win", *files, *given)
    assert result.exit_code == 0, result.output
    assert len(provider.bodies) == before  # all of it follows from the labels
    verdicts = {name: (v["outcome"], v["basis"]) for name, v in read("win.json")["verdicts"]["a"]["second"].items()}
    assert verdicts == {
        "1": ("tie", "identical"), "2": ("win", "labels"), "3": ("lose", "missing"), "4": ("win", "missing"),
    }  # fmt: skip


def test_an_estimate_sends_nothing(umi: Umi, provider: Provider, files: list[str]) -> None:
    judge = judge_file(provider.base_url)
    result = umi("win", *files, "--reference", "first", "--judge", judge, "--estimate", "--json", "cost.json")
    assert result.exit_code == 0, result.output
    bounds = read("cost.json")["estimate"]
    assert 0 < bounds["least"]["asked"] < bounds["most"]["asked"]
    assert provider.bodies == [] and not Path("judge-replies.sqlite").exists()


def test_a_panel_measures_the_judge_and_is_only_believed_of_this_judge(umi: Umi, provider: Provider) -> None:
    queries = [str(number) for number in range(10)]
    good = answers_file("good.json", *(answered(name, "yes, and here is why") for name in queries))
    bad = answers_file("bad.json", *(answered(name, "yes" if name == "0" else "no") for name in queries))
    labels = {"good": dict.fromkeys(queries, True), "bad": dict.fromkeys(queries, False)}
    Path("truth.json").write_text(json.dumps({"labels": labels}))
    systems = ["--answers", good, "--answers", bad]
    judge = judge_file(provider.base_url)
    result = umi("panel", *systems, "--truth", "truth.json", "--judge", judge, "--json", "panel.json")
    assert result.exit_code == 0, result.output
    panel = read("panel.json")
    assert panel["pass"]["accuracy"]["value"] == 0.95
    assert panel["pass"]["specificity"]["value"] == 0.9
    assert (panel["win"]["accuracy"]["value"], panel["win"]["position_bias"]["value"]) == (1.0, 0.0)
    result = umi("pass", *systems, "--judge", judge, "--panel", "panel.json", "--json", "pass.json")
    assert result.exit_code == 0 and "not measured" not in result.output
    assert read("pass.json")["panel"]["pass"]["accuracy"]["value"] == 0.95
    other = judge_file(provider.base_url, temperature=0.9)
    result = umi("pass", *systems, "--judge", other, "--panel", "panel.json")
    assert isinstance(result.exception, UserError) and "another judge" in str(result.exception)


def test_compat_asks_the_published_words_and_writes_the_published_files(
    umi: Umi, provider: Provider, files: list[str], real_data: Path
) -> None:
    words = real_data / "stabletoolbench" / "tooleval"
    given = ["--mode", "compat", "--votes", "2", "--templates", str(words), "--results", "out"]
    result = umi("pass", *files, "--judge", judge_file(provider.base_url), *given)
    assert result.exit_code == 0, result.output
    published = read("out/first/a_first.json")
    assert set(published) == {"1", "2", "3"}  # what is not answered is not there
    assert set(published["1"]["is_solved"]) == {"0", "1"}
    assert "Parse the json answer" in provider.bodies[0]["tools"][0]["function"]["description"]


def test_a_folder_is_a_test_set_a_file_and_ids_say_which_queries_count(umi: Umi, provider: Provider) -> None:
    for folder in ("a", "ids"):
        Path(folder).mkdir()
    for name in ("G1", "G2"):
        answers_file(f"a/{name}.json", answered("1", "yes"), answered("9", "yes"))
        Path(f"ids/{name}.json").write_text('{"1": 0, "2": 0}')
    given = ["--answers", "a", "--ids", "ids", "--judge", judge_file(provider.base_url), "--json", "pass.json"]
    assert umi("pass", *given).exit_code == 0
    written = read("pass.json")
    assert {name: one["a"]["queries"] for name, one in written["sets"].items()} == {"G1": 2, "G2": 2}
    assert written["average"]["a"]["value"] == 0.5


def test_a_checker_needs_no_judge_and_no_server(umi: Umi) -> None:
    Path("truth.json").write_text('{"facts": {"1": ["yes"], "2": ["yes"]}}')
    name = answers_file("a.json", answered("1", "yes"), run("2", call("look_up"), told("no")))
    result = umi("pass", "--answers", name, "--checker", "truth.json", "--json", "pass.json")
    assert result.exit_code == 0, result.output
    assert read("pass.json")["sets"]["a"]["a"]["pass_rate"]["value"] == 0.5


def test_a_command_that_was_killed_loses_the_question_in_flight_and_no_more(umi: Umi) -> None:
    answers_file("a.json", *(answered(str(number), "yes") for number in range(6)))
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def killing(body: Body) -> Body:
        if len(provider.bodies) == 4:
            ready.wait()
            started[0].kill()
            started[0].wait()
        return judging(body)

    with providing(killing) as provider:
        Path("judge.yaml").write_text(
            yaml.safe_dump({"judge": {"base_url": provider.base_url, "model": "judge", "concurrency": 1}})
        )
        given = ["pass", "--answers", "a.json", "--judge", "judge.yaml", "--votes", "1", "--json", "pass.json"]
        started.append(subprocess.Popen([sys.executable, "-m", "alpha_umi.cli", "eval", "judge", *given]))
        ready.set()
        started[0].wait()
        assert len(provider.bodies) == 4 and not Path("pass.json").exists()
        assert umi(*given).exit_code == 0
        assert len(provider.bodies) == 4 + 3
    assert read("pass.json")["sets"]["a"]["a"]["pass_rate"]["value"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--judge", "nowhere.yaml"], "nowhere.yaml"),
        (["--judge", "judge.yaml", "--mode", "loose"], "give fixed or compat"),
        (["--judge", "judge.yaml", "--results", "out"], "--mode compat"),
        (["--judge", "judge.yaml", "--checker", "recorded"], "leave out --judge"),
        (["--judge", "judge.yaml", "--answers", "a.json"], "name it otherwise"),
        (["--checker", "recorded"], "knows nothing of query 1"),
        ([], "give --judge FILE"),
    ],
)
def test_what_is_given_wrong_is_one_sentence(umi: Umi, arguments: list[str], said: str) -> None:
    answers_file("a.json", answered("1", "yes"))
    judge_file("http://127.0.0.1:9/v1")
    result = umi("pass", "--answers", "a.json", *arguments)
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)
    assert not Path("judge-replies.sqlite").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "it is a mapping"),
        ("judge: {base_url: 'http://x/v1', model: m, rationale: drop}", "rationale is not for judges"),
        ("judge: {base_url: 'http://x/v1', model: m}\ntemprature: 0", "temprature"),
        ("judge: {base_url: 'ftp://u:pw@x', model: m}", "without a key in it"),
    ],
)
def test_a_judge_file_that_is_wrong_is_one_sentence_without_its_values(umi: Umi, content: str, said: str) -> None:
    answers_file("a.json", answered("1", "yes"))
    Path("judge.yaml").write_text(content)
    result = umi("pass", "--answers", "a.json", "--judge", "judge.yaml")
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception) and "pw@" not in str(result.exception)


def test_a_server_that_fails_ends_it_and_what_it_said_before_is_kept(umi: Umi) -> None:
    answers_file("a.json", *(answered(str(number), "yes") for number in range(6)))
    left = [3]

    def failing(body: Body) -> Any:
        left[0] -= 1
        return judging(body) if left[0] >= 0 else failure(401, f"the key {KEY} is wrong")

    with providing(failing) as provider:
        judge = judge_file(provider.base_url)
        result = umi("pass", "--answers", "a.json", "--judge", judge, "--votes", "1")
        assert isinstance(result.exception, UserError)
        assert "status 401" in str(result.exception) and KEY not in str(result.exception)
        left[0] = 100
        asked = len(provider.bodies)
        assert umi("pass", "--answers", "a.json", "--judge", judge, "--votes", "1").exit_code == 0
        assert len(provider.bodies) - asked < 6
