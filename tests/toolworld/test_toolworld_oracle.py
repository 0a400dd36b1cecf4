from __future__ import annotations

import doctest
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import alpha_umi.toolworld
from alpha_umi.errors import ToolError
from alpha_umi.toolworld import SPLITS, Outcome, Task, Verdict, World, check, fault_text, load_catalogue, make_tasks
from alpha_umi.toolworld.catalogue import READING, WRITING
from alpha_umi.toolworld.checker import contains
from alpha_umi.toolworld.operations import argument_error
from alpha_umi.toolworld.oracle import solution
from alpha_umi.toolworld.splits import count_characters
from alpha_umi.trajectory import AssistantMessage, Decision, ToolMessage, Trajectory

ALL_SPLITS = ("train", *SPLITS)


def turns(trajectory: Trajectory) -> list[AssistantMessage]:
    return [message for message in trajectory.messages if isinstance(message, AssistantMessage)]


def replay(task: Task, trajectory: Trajectory) -> tuple[World, list[str]]:
    """Makes a trajectory's calls in a fresh world; the world and what it said."""
    world, said = World(task), []
    for turn in turns(trajectory):
        for call in turn.tool_calls:
            try:
                said.append(world.call(call.name, json.loads(call.arguments)))
            except ToolError as error:
                said.append(fault_text(error))
    return world, said


def outcome(trajectory: Trajectory) -> Outcome:
    last = turns(trajectory)[-1]
    return Outcome(last.content, last.decision == Decision.GIVE_UP)


def of_kind(solved, kind: str) -> list[tuple[Task, Trajectory]]:
    return [pair for pairs in solved.values() for pair in pairs if pair[0].kind == kind]


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_the_oracle_solves_every_task_and_a_replay_sees_the_same(solved, split):
    for task, trajectory in solved[split]:
        world, said = replay(task, trajectory)
        observed = [message.content for message in trajectory.messages if isinstance(message, ToolMessage)]
        assert said == observed
        verdict = check(task, world, outcome(trajectory))
        assert verdict.solved, (task.id, verdict.reason)


def test_no_answer_is_no_solution(tasks):
    assert not any(check(task, World(task), Outcome(None)).solved for task in tasks["I1-Inst"])


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_doing_nothing_solves_nothing(tasks, split):
    for task in tasks[split]:
        assert not check(task, World(task), Outcome("Done.")).solved


def test_giving_up_solves_only_what_cannot_be_done(solved):
    for pairs in solved.values():
        for task, trajectory in pairs:
            world, _ = replay(task, trajectory)
            solved_it = check(task, world, Outcome(None, gave_up=True)).solved
            assert solved_it == (task.kind in ("impossible", "blocked"))


def test_an_answer_without_one_of_the_facts_is_wrong(solved):
    for task, trajectory in solved["train"]:
        facts = solution(task).facts
        if facts and task.kind not in ("missing", "empty"):
            world, _ = replay(task, trajectory)
            last = facts[-1]
            answer = " ".join(fact[0] for fact in facts if not set(fact) & set(last))
            assert check(task, world, Outcome(answer)) == Verdict(False, f"the answer lacks {last[0]!r}")


def test_one_call_too_many_that_changes_something_is_a_failure(solved):
    apis = load_catalogue().apis
    found = 0
    for task, trajectory in of_kind(solved, "single"):
        world, _ = replay(task, trajectory)
        before = world.state()
        for tool in task.tools:
            if apis[tool.name].op == "cancel":
                key = apis[tool.name].params[0].name
                world.call(tool.name, {key: task.tables[apis[tool.name].table][0][key]})
        if world.state() != before:
            found += 1
            assert "state" in check(task, world, outcome(trajectory)).reason
    assert found > 20


def test_reading_more_than_needed_is_no_failure(solved):
    apis = load_catalogue().apis
    for task, trajectory in of_kind(solved, "single")[:50]:
        world, _ = replay(task, trajectory)
        for tool in task.tools:
            if apis[tool.name].op in READING:
                world.call(tool.name, {name: "x" for name in tool.parameters["properties"]})
        assert check(task, world, outcome(trajectory)).solved


def test_a_missing_parameter_is_asked_for_by_name_before_anything_is_called(solved):
    for task, trajectory in of_kind(solved, "missing"):
        assert [turn.decision for turn in turns(trajectory)] == [Decision.FINISH]
        rationale = turns(trajectory)[-1].reasoning_content or ""
        assert task.missing is not None and contains(rationale, task.missing)
        assert check(task, World(task), Outcome(f"Please give me the {task.missing.replace('_', ' ')}.")).solved
        assert not check(task, World(task), Outcome("Could you tell me more?")).solved


def test_what_is_missing_is_required_and_not_in_the_request(tasks):
    for task in (task for some in tasks.values() for task in some if task.kind == "missing"):
        lacking = [s for s in task.steps if task.missing in load_catalogue().apis[s.tool].tool.parameters["required"]]
        assert any(task.missing not in step.arguments for step in lacking)


def test_nothing_in_the_list_does_what_an_impossible_task_asks(solved):
    apis = load_catalogue().apis
    for task, trajectory in of_kind(solved, "impossible"):
        shown = {tool.name for tool in task.tools}
        asked = {step.tool for step in task.steps}
        assert not shown & asked
        assert not {apis[name].mirror_of for name in shown} & asked
        assert [turn.decision for turn in turns(trajectory)] == [Decision.GIVE_UP]


def test_a_passing_failure_is_tried_once_more_with_the_same_call(solved):
    for task, trajectory in of_kind(solved, "retry"):
        calls = [call for turn in turns(trajectory) for call in turn.tool_calls]
        failing = [call for call in calls if call.name == task.faults[0].tool]
        assert any(one.arguments == other.arguments for one in failing for other in failing if one is not other)
        assert turns(trajectory)[-1].decision == Decision.FINISH


def test_what_is_not_authorised_is_not_tried_again(solved):
    for kind in ("alternative", "blocked"):
        for task, trajectory in of_kind(solved, kind):
            tries = [c.name for turn in turns(trajectory) for c in turn.tool_calls].count(task.faults[0].tool)
            assert tries == (1 if task.faults[0].kind == "not_authorised" else 2)


def test_a_tool_that_fails_for_good_is_replaced_by_its_mirror_with_the_same_arguments(solved):
    apis = load_catalogue().apis
    for task, trajectory in of_kind(solved, "alternative"):
        calls = [call for turn in turns(trajectory) for call in turn.tool_calls]
        victim = task.faults[0].tool
        mirror = next(call for call in calls if apis[call.name].mirror_of == victim)
        assert mirror.arguments in [call.arguments for call in calls if call.name == victim]


def test_calls_that_belong_together_stand_in_one_turn(solved):
    for _, trajectory in of_kind(solved, "parallel"):
        assert len(turns(trajectory)[0].tool_calls) == 2


def test_a_chain_uses_a_result_that_the_instruction_does_not_give(solved):
    for task, trajectory in of_kind(solved, "chain"):
        second = turns(trajectory)[1].tool_calls[0]
        observed = next(m.content for m in trajectory.messages if isinstance(m, ToolMessage))
        given = [v for v in json.loads(second.arguments).values() if json.dumps(v) in observed]
        assert any(str(value) not in task.instruction for value in given)


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_every_call_is_valid_canonical_json_and_announced_by_its_rationale(solved, split):
    for task, trajectory in solved[split]:
        tools = {tool.name: tool for tool in task.tools}
        for turn in turns(trajectory):
            for call in turn.tool_calls:
                arguments = json.loads(call.arguments)
                assert json.dumps(arguments, ensure_ascii=False) == call.arguments
                order = [name for name in tools[call.name].parameters["properties"] if name in arguments]
                assert list(arguments) == order
                assert argument_error(load_catalogue().apis[call.name], arguments) is None
                said = turn.reasoning_content or ""
                assert call.name in said
                for name, value in arguments.items():
                    shown = value if isinstance(value, list) else [str(value).lower() if value is True else str(value)]
                    assert name in said and all(str(one) in said for one in shown)


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_what_a_call_needs_stands_in_the_instruction_or_in_an_observation(solved, split):
    for task, trajectory in solved[split]:
        seen = task.instruction
        for message in trajectory.messages:
            if isinstance(message, AssistantMessage):
                values = [v for call in message.tool_calls for v in json.loads(call.arguments).values()]
                flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
                assert all(one is True or str(one) in seen for one in flat)
            elif isinstance(message, ToolMessage):
                seen += message.content


@pytest.mark.parametrize("split", ALL_SPLITS)
def test_transcripts_are_short(solved, split):
    for _, trajectory in solved[split]:
        assert count_characters(trajectory) <= 3000
        calls = [call for turn in turns(trajectory) for call in turn.tool_calls]
        assert [call.id for call in calls] == [f"call_{index}" for index in range(len(calls))]
        assert len(calls) <= 4
        assert all(len((turn.reasoning_content or "").split()) <= 80 for turn in turns(trajectory))
        assert len((turns(trajectory)[-1].content or turns(trajectory)[-1].refusal or "").split()) <= 30
        assert all(len(m.content) <= 260 for m in trajectory.messages if isinstance(m, ToolMessage))


def test_a_training_transcript_has_1800_characters_on_average(training):
    assert sum(map(count_characters, training)) / len(training) <= 1800


def test_rationales_are_not_one_canned_sentence(training):
    rationales = [turn.reasoning_content for one in training for turn in turns(one)]
    assert len(set(rationales)) > 0.8 * len(rationales)


def test_a_trajectory_says_where_it_comes_from(solved):
    for split, pairs in solved.items():
        for task, trajectory in pairs:
            assert trajectory.id == task.id
            assert trajectory.extra == {"toolworld": {"split": split, "kind": task.kind, "seed": task.seed}}
            assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_a_right_answer_in_other_words_is_right():
    task = next(t for t in make_tasks("I1-Inst", 500) if t.kind == "single" and _writes(t))
    world, _ = replay(task, solution(task).trajectory)
    facts = " and  ".join(fact[-1].upper() for fact in solution(task).facts)
    assert check(task, world, Outcome(f"All done:\n{facts}!")).solved


def _writes(task: Task) -> bool:
    return load_catalogue().apis[task.steps[0].tool].op in WRITING


def test_a_world_without_its_faults_is_another_task(solved):
    task, trajectory = of_kind(solved, "blocked")[0]
    assert not check(replace(task, faults=()), World(task), outcome(trajectory)).solved


@pytest.mark.parametrize(
    ("text", "fact", "found"),
    [
        ("It costs 84.", "84", True),
        ("It costs 84, so it is cheap", "84", True),
        ("It costs 1842", "84", False),
        ("It costs 84.5", "84", False),
        ("It costs 1.84", "84", False),
        ("The id is BK-4821", "4821", False),
        ("The id is bk-4821!", "BK-4821", True),
        ("by  tamiro\nkeld", "Tamiro Keld", True),
        ("Tamirox", "Tamiro", False),
        ("at 14:30", "14", False),
    ],
)
def test_a_fact_counts_only_as_a_whole(text, fact, found):
    assert contains(text, fact) is found


@given(st.text(max_size=40), st.from_regex(r"[A-Za-z0-9]{1,8}", fullmatch=True))
def test_a_fact_between_spaces_is_always_found(text, fact):
    assert contains(f"{text} {fact} {text}", fact)


def test_the_worked_example_of_the_documentation_is_true():
    result = doctest.testmod(alpha_umi.toolworld, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted >= 7 and result.failed == 0
