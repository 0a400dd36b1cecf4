"""Every mistake of a model and every failure of a tool becomes an observation that says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools import Approval, ApprovalPolicy, Observation, ToolWorldSource, execute
from alpha_umi.tools.execution import perform, prepare
from alpha_umi.toolworld import fault_text
from alpha_umi.trajectory import Tool, ToolCall

WEATHER = Tool.of(
    "get_weather",
    "Weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1},
            "units": {"enum": ["metric", "imperial"]},
            "hours": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["city"],
    },
)
NOTHING = Tool('{"name": "ping"}')
OPEN = Tool.of("open", "", {"type": "object", "additionalProperties": {"type": "integer"}})
COMPOSED = Tool.of("composed", "", {"anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}]})
BROKEN = Tool.of("broken", "", {"type": "objekt", "properties": {"x": {"type": "dict", "$ref": "http://nowhere/x"}}})


class Echo:
    """Replies with its arguments, or does what a test tells it to."""

    tools = (WEATHER, NOTHING, OPEN, COMPOSED, BROKEN)

    def __init__(self, error: Exception | None = None, wait: bool = False) -> None:
        self.error = error
        self.wait = wait
        self.made: list[str] = []

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.made.append(name)
        if self.wait:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return json.dumps(arguments)


def run(source: Echo, name: str, arguments: str, malformed: bool = False, timeout: float = 5) -> Observation:
    return asyncio.run(execute(source, ToolCall("call_0", name, arguments, malformed), timeout=timeout))


def test_a_good_call_is_made_and_its_reply_is_the_observation() -> None:
    assert run(Echo(), "get_weather", '{"city": "Paris", "days": 2}') == Observation('{"city": "Paris", "days": 2}')
    assert run(Echo(), "ping", "{}") == Observation("{}")


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "words"),
    [
        ("get_wether", "{}", "unknown_tool", "did you mean 'get_weather'?"),
        ("zzz", "{}", "unknown_tool", "the tools are get_weather, ping"),
        ("", "{}", "unknown_tool", "the tools are"),
        ("get_weather", "[]", "invalid_arguments", "one JSON object"),
        ("get_weather", '{"city": ', "invalid_arguments", "one JSON object"),
        ("get_weather", '"Paris"', "invalid_arguments", "one JSON object"),
        ("get_weather", "{}", "invalid_arguments", "'city' is required"),
        ("get_weather", '{"city": 3}', "invalid_arguments", "city: 3 is not of type 'string'"),
        ("get_weather", '{"city": "P", "days": "2"}', "invalid_arguments", "days: '2' is not of type 'integer'"),
        ("get_weather", '{"city": "P", "days": 0}', "invalid_arguments", "days: 0 is less than"),
        ("get_weather", '{"city": "P", "units": "x"}', "invalid_arguments", "units: 'x' is not one of"),
        ("get_weather", '{"city": "P", "hours": [1, "b"]}', "invalid_arguments", "hours.1: 'b' is not of type"),
        ("get_weather", '{"city": "P", "day": 2}', "invalid_arguments", "no parameter 'day'; did you mean 'days'?"),
        ("get_weather", '{"city": "P", "qqqq": 2}', "invalid_arguments", "the parameters are city, days"),
        ("ping", '{"x": 1}', "invalid_arguments", "the parameters are none"),
        ("get_weather", '{"city": "P", "hours": [1, NaN]}', "invalid_arguments", "hours.1: NaN is no finite number"),
        ("open", '{"a": {"b\\n": [1e999]}}', "invalid_arguments", "a.b\\n.0: Infinity is no finite number"),
        ("open", '{"a": -Infinity}', "invalid_arguments", "a: -Infinity is no finite number"),
        ("open", '{"anything": "x"}', "invalid_arguments", "anything: 'x' is not of type 'integer'"),
        ("composed", "{}", "invalid_arguments", "is not valid under any"),
    ],
)
def test_a_call_that_cannot_be_made_is_answered_and_not_made(name: str, arguments: str, kind: str, words: str) -> None:
    source = Echo()
    observation = run(source, name, arguments)
    assert observation.error == kind
    assert words in json.loads(observation.text)["error"]
    assert json.loads(observation.text)["error"].startswith(f"{kind}: ")
    assert source.made == []


def test_text_that_is_no_call_is_answered_with_the_form_of_one() -> None:
    observation = run(Echo(), "get_weather", "get_weather(Paris)", malformed=True)
    assert observation.error == "malformed_call"
    assert '{"name": "...", "arguments": {...}}' in json.loads(observation.text)["error"]


def test_a_tool_whose_schema_allows_more_takes_more() -> None:
    assert run(Echo(), "open", '{"anything": 3}').error is None
    assert run(Echo(), "composed", '{"a": "x"}').error is None


def test_a_tool_whose_own_schema_is_broken_can_still_be_called() -> None:
    assert run(Echo(), "broken", '{"x": 1}').error is None


def test_a_tool_that_does_not_reply_in_time_is_a_timeout() -> None:
    observation = run(Echo(wait=True), "ping", "{}", timeout=0.01)
    assert observation == Observation('{"error": "timeout: no reply within 0.01 seconds"}', "timeout")


def test_a_tools_own_error_reads_as_it_does_in_the_tool_world() -> None:
    error = ToolError("server_error", "internal error 500")
    assert run(Echo(error), "ping", "{}") == Observation(fault_text(error), "server_error")


def test_what_is_neither_the_models_nor_the_tools_mistake_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run(Echo(ZeroDivisionError()), "ping", "{}")


def test_a_tool_that_the_agent_was_not_shown_is_unknown() -> None:
    call = ToolCall("call_0", "ping", "{}")
    assert asyncio.run(execute(Echo(), call, timeout=1, tools=(WEATHER,))).error == "unknown_tool"


# ---- what is read ---------------------------------------------------------------------------------------------------


class Says:
    """Says what it was made with, whatever it is asked."""

    tools = (NOTHING,)

    def __init__(self, text: str) -> None:
        self.text = text

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if self.text.startswith("fail:"):
            raise ToolError("server_error", self.text)
        return self.text


def read(text: str, **options: Any) -> Observation:
    return asyncio.run(execute(Says(text), ToolCall("call_0", "ping", "{}"), timeout=5, **options))


def test_a_long_reply_keeps_its_head_and_its_tail() -> None:
    text = read("head" + "x" * 1_000_000 + "tail", result_bytes=1000).text
    assert text.startswith("headxxx")
    assert text.endswith("xxxtail")
    assert "[... 999008 bytes cut ...]" in text
    assert len(text) < 1050


def test_a_long_error_is_bounded_and_is_still_json() -> None:
    observation = read("fail:" + '"\n' * 1_000_000)
    assert observation.error == "server_error"
    assert len(json.loads(observation.text)["error"]) < 4200


@pytest.mark.parametrize("said", ["it is canary-value!", "fail: it is canary-value!"])
def test_secrets_of_the_environment_are_in_no_observation(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-value")
    observation = read(said)
    assert "canary" not in observation.text
    assert "it is [masked]!" in observation.text


def test_secrets_that_the_model_writes_are_masked_in_the_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-value")
    assert "canary" not in run(Echo(), "get_weather", '{"city": "P", "units": "canary-value"}').text


def test_control_characters_are_not_in_an_observation() -> None:
    assert read("\x1b[2Jall\x00 clear\u202e").text == "all clear"


# ---- who agrees -----------------------------------------------------------------------------------------------------


class Writer(Echo):
    """One of its tools writes."""

    writes = frozenset({"open"})


def asked(policy: ApprovalPolicy, name: str, says: bool | None) -> tuple[Observation, list[str], list[str]]:
    """What is read, which tools were asked for, which were called; ``says`` None: nobody is there."""
    heard: list[str] = []

    def ask(name: str, arguments: Mapping[str, Any]) -> bool:
        heard.append(f"{name}{dict(arguments)}")
        return bool(says)

    source = Writer()
    approval = Approval(policy, None if says is None else ask)
    call = ToolCall("call_0", name, '{"x": 1}' if name == "open" else "{}")
    return asyncio.run(execute(source, call, timeout=5, approval=approval)), heard, source.made


@pytest.mark.parametrize(
    ("policy", "name", "says", "questions", "made"),
    [
        (ApprovalPolicy.WRITES, "open", True, 1, True),
        (ApprovalPolicy.WRITES, "open", False, 1, False),
        (ApprovalPolicy.WRITES, "open", None, 0, False),
        (ApprovalPolicy.WRITES, "ping", False, 0, True),
        (ApprovalPolicy.ALWAYS, "ping", True, 1, True),
        (ApprovalPolicy.ALWAYS, "ping", False, 1, False),
        (ApprovalPolicy.ALWAYS, "ping", None, 0, False),
        (ApprovalPolicy.NEVER, "open", False, 0, True),
    ],
)
def test_calls_are_confirmed_as_the_policy_says(
    policy: ApprovalPolicy, name: str, says: bool | None, questions: int, made: bool
) -> None:
    observation, heard, called = asked(policy, name, says)
    assert len(heard) == questions
    assert (called == [name]) is made
    assert observation.error == (None if made else "not_approved")


def test_whoever_is_asked_sees_the_arguments() -> None:
    assert asked(ApprovalPolicy.WRITES, "open", True)[1] == ["open{'x': 1}"]


def test_nobody_is_asked_about_a_call_that_cannot_be_made() -> None:
    call = ToolCall("call_0", "open", '{"x": "text"}')
    heard: list[str] = []
    approval = Approval(ApprovalPolicy.ALWAYS, lambda name, arguments: bool(heard.append(name)))
    assert asyncio.run(execute(Writer(), call, timeout=5, approval=approval)).error == "invalid_arguments"
    assert heard == []


def test_without_a_word_on_approval_calls_that_write_are_refused() -> None:
    observation = run(Writer(), "open", '{"x": 1}')
    assert observation.error == "not_approved"
    assert "nobody to ask" in observation.text


def test_an_unknown_policy_is_named() -> None:
    assert Approval.of("never", None).policy is ApprovalPolicy.NEVER
    with pytest.raises(UserError, match=r"sometimes.*always, writes, never"):
        Approval.of("sometimes", None)


# ---- the calls of one turn ------------------------------------------------------------------------------------------


def turn(source: Any, arguments: list[str], name: str = "ping", **options: Any) -> list[Observation]:
    calls = [ToolCall(f"call_{number}", name, text) for number, text in enumerate(arguments)]
    prepared = prepare(source, calls, Approval())
    return asyncio.run(perform(source, prepared, **({"timeout": 5} | options)))


class Meeting:
    """Its calls end, the last first, when as many have begun as were announced: only side by side can they end."""

    tools = (OPEN,)

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.begun: list[int] = []
        self.full = asyncio.Event()

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.begun.append(arguments["n"])
        if len(self.begun) == self.expected:
            self.full.set()
        await self.full.wait()
        for _ in range(self.expected - arguments["n"]):
            await asyncio.sleep(0)
        return str(arguments["n"])


def test_calls_of_a_turn_are_made_side_by_side_and_read_in_their_order() -> None:
    made = turn(Meeting(5), [f'{{"n": {n}}}' for n in range(5)], "open")
    assert [observation.text for observation in made] == ["0", "1", "2", "3", "4"]


def test_calls_that_must_be_in_order_wait_for_each_other_only() -> None:
    class Mixed:
        tools = (NOTHING, OPEN)
        in_order = frozenset({"ping"})

        def __init__(self) -> None:
            self.log: list[str] = []
            self.other = asyncio.Event()

        async def call(self, name: str, arguments: dict[str, Any]) -> str:
            self.log.append(f"{name} begins")
            if name == "open":
                self.other.set()
            await self.other.wait()
            self.log.append(f"{name} ends")
            return name

    source = Mixed()
    calls = [ToolCall(str(n), name, "{}") for n, name in enumerate(["ping", "ping", "open"])]
    made = asyncio.run(perform(source, prepare(source, calls, Approval()), timeout=5))
    assert [observation.text for observation in made] == ["ping", "ping", "open"]
    pings = [line for line in source.log if line.startswith("ping")]
    assert pings == ["ping begins", "ping ends"] * 2
    assert source.log.index("open begins") < source.log.index("ping ends")


def test_one_call_that_hangs_does_not_keep_the_others() -> None:
    class Some(Echo):
        async def call(self, name: str, arguments: dict[str, Any]) -> str:
            if arguments["x"]:
                await asyncio.Event().wait()
            return "done"

    made = turn(Some(), ['{"x": 1}', '{"x": 0}'], "open", timeout=0.05)
    assert [observation.error for observation in made] == ["timeout", None]


def test_what_is_left_of_the_run_bounds_all_calls_together() -> None:
    class Ordered(Echo):
        in_order = frozenset({"ping"})

    made = turn(Ordered(wait=True), ["{}"] * 3, timeout=5, seconds=0.05)
    assert made[0].error == "timeout"
    assert {observation.error for observation in made[1:]} == {"not_run"}


def test_once_the_run_is_cancelled_calls_are_stopped_and_say_so() -> None:
    class Stops(Echo):
        stopped = 0

        async def call(self, name: str, arguments: dict[str, Any]) -> str:
            self.made.append(name)
            if arguments["x"] == 0:
                return "done"
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped += 1
            raise AssertionError

    source = Stops()
    made = turn(source, ['{"x": 1}', '{"x": 0}', '{"x": 1}'], "open", cancelled=lambda: len(source.made) == 3)
    assert [observation.error for observation in made] == ["not_run", None, "not_run"]
    assert source.stopped == 2


def test_a_mistake_of_the_program_in_one_call_stops_the_others() -> None:
    class Bug(Echo):
        stopped = 0

        async def call(self, name: str, arguments: dict[str, Any]) -> str:
            if arguments["x"]:
                raise ZeroDivisionError
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped += 1
            raise AssertionError

    source = Bug()
    with pytest.raises(ZeroDivisionError):
        turn(source, ['{"x": 0}', '{"x": 1}'], "open")
    assert source.stopped == 1


def test_a_call_for_the_client_is_checked_and_not_made() -> None:
    class Described(Echo):
        client = frozenset({"open"})

    source = Described()
    made = turn(source, ['{"x": 1}', '{"x": "text"}'], "open")
    assert made[0] == Observation("", client=True)
    assert made[1].error == "invalid_arguments"
    assert source.made == []


def test_calls_of_a_world_happen_in_the_order_of_the_turn() -> None:
    class Log:
        tools = (OPEN,)

        def __init__(self) -> None:
            self.made: list[int] = []

        def call(self, name: str, arguments: Mapping[str, Any]) -> str:
            self.made.append(arguments["n"])
            return "{}"

    world = Log()
    turn(ToolWorldSource(world), [f'{{"n": {n}}}' for n in range(20)], "open")
    assert world.made == list(range(20))
