import hashlib
import os
import random
import re
import subprocess
import sys
from functools import cache

from alpha_umi.toolworld import KINDS, World, make_tasks, solve
from alpha_umi.toolworld.values import words
from alpha_umi.training.reword import reword
from alpha_umi.trajectory import AssistantMessage, Trajectory

CAPITALISED = re.compile(r"[A-Z][a-z]+")


@cache
def pairs() -> list[tuple[Trajectory, Trajectory]]:
    plain = [solve(task) for task in make_tasks("train", 200)]
    return [(one, reword(one, random.Random(number))) for number, one in enumerate(plain)]


def text(trajectory: Trajectory) -> str:
    return trajectory.to_json()


def test_every_call_is_still_one_of_a_listed_tool_with_its_parameters():
    for _, new in pairs():
        tools = {tool.name: tool for tool in new.tools}
        for message in new.messages:
            for call in message.tool_calls if isinstance(message, AssistantMessage) else ():
                arguments = call.parsed()
                assert arguments is not None
                assert arguments.keys() <= tools[call.name].parameters["properties"].keys()


def test_no_tool_keeps_its_collections_name():
    for old, new in pairs():
        assert not {t.name.partition("_")[0] for t in old.tools} & {t.name.partition("_")[0] for t in new.tools}


def test_values_stay_as_they_were():
    names = {word for pool in ("train", "held-out") for word in words(pool)}
    for old, new in pairs():
        for pattern in (re.compile(r"[A-Z]{2}-\d+"), re.compile(r"\d+")):
            assert pattern.findall(text(old)) == pattern.findall(text(new))
        assert [w for w in CAPITALISED.findall(text(old)) if w in names] == [
            w for w in CAPITALISED.findall(text(new)) if w in names
        ]


def test_decisions_and_errors_stay_as_they_were():
    for old, new in pairs():
        assert [m.role for m in old.messages] == [m.role for m in new.messages]
        for a, b in zip(old.messages, new.messages, strict=True):
            if isinstance(a, AssistantMessage) and isinstance(b, AssistantMessage):
                assert a.decision == b.decision and len(a.tool_calls) == len(b.tool_calls)


def test_the_same_seed_gives_the_same_words_and_another_seed_others():
    one = solve(next(make_tasks("train", 1)))
    assert reword(one, random.Random(1)) == reword(one, random.Random(1)) != reword(one, random.Random(2))


def test_every_kind_of_task_can_be_reworded():
    seen = set()
    for task in make_tasks("train", 300):
        World(task)
        reword(solve(task), random.Random(0))
        seen.add(task.kind)
    assert seen == set(KINDS)


DIGEST = """
import hashlib, random
from alpha_umi.toolworld import make_tasks, solve
from alpha_umi.training.reword import reword
texts = [reword(solve(task), random.Random(n)).to_json() for n, task in enumerate(make_tasks("train", 20))]
print(hashlib.sha256("".join(texts).encode()).hexdigest())
"""


def test_another_process_rewords_alike():
    """A run that is killed goes on in another process, where the strings of a set come in another order."""
    here = "".join(reword(solve(task), random.Random(n)).to_json() for n, task in enumerate(make_tasks("train", 20)))
    there = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert there == {hashlib.sha256(here.encode()).hexdigest()}
