"""The paper's training rows: a ``{"tools", "history", "input", "target"}`` a step and role, as the reference has them.

``input`` is the role's prompt (in ToolBench's wording or ToolAlpaca's), ``target`` what it has to write, ``history``
the turns before it in the α-UMi format. Made of trajectories that were read from α-UMi's files, all four fields are
the reference code's own, in its order. Its quirks, all of them kept:

* every item of the history ends in ``</s>`` but an observation, which nothing ends;
* a planner turn that is followed by neither a call nor an answer is no row, and stays in the history;
* a planner turn gives up if it holds ``Next: give up.`` anywhere;
* the planner's row before a call of ``invalid_hallucination_function_name`` is left out; such a call is no row of the
  caller and not in the caller's history, but in the planner's and summarizer's, and the backbone learns it;
* an answer ``none`` is no row of the summarizer and not in its history; planner and backbone learn to finish there;
* the caller's history ends in the planner's turn, which is its ``{thought}`` a second time;
* the backbone's history has a step's thought and call or answer as one ``assistant`` item, without ``Next: ...``
  wherever that stands in the thought;
* the backbone's row that gives up has the ``input`` of the backbone's row before it, of the record before if need be
  (the first row of all, where the reference code fails, has its own);
* placeholders are replaced one after the other, in the texts put in for earlier ones too.

Of other trajectories: a turn of several calls is one step a call, in order, each with its own observation, the
rationale in the first; a system message is a user turn; an argument is ``type, description``; a decided turn without a
rationale is a planner turn of its decision alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any, get_args

from alpha_umi.data import alpha_umi
from alpha_umi.data.format import Format, Options, PaperRole, Wording
from alpha_umi.data.function_chains import NO_ANSWER
from alpha_umi.data.paper_prompts import fill, history_item
from alpha_umi.errors import UserError
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    ToolMessage,
    Trajectory,
)

Turn = dict[str, Any]
Row = dict[str, Any]

_GIVE_UP = "Next: give up."
_INVENTED = "invalid_hallucination_function_name"


def rows(trajectories: Iterable[Trajectory], options: Options) -> Iterator[Row]:
    """The rows of one role.

    Raises:
        UserError: No role is named.
    """
    if options.role is None:
        raise UserError(f"paper-rows are the rows of one role; name it with --role ({', '.join(get_args(PaperRole))}).")
    records = (alpha_umi.as_record(one_call_a_step(trajectory)) for trajectory in trajectories)
    if options.role == "backbone":
        return _backbone(records, options.wording)
    return _of_role(options.role, records, options.wording)


# ---- planner, caller, summarizer ------------------------------------------------------------------------------------


def _of_role(role: PaperRole, records: Iterable[dict[str, Any]], wording: Wording) -> Iterator[Row]:
    is_row, is_left_out = _IS_ROW[role], _LEFT_OUT.get(role, lambda turn: False)
    for record in records:
        turns = record["conversations"]
        history = ""
        for at, turn in enumerate(turns):
            if is_row(turns, at):
                thought = turns[at - 1]["value"] if role == "caller" else ""
                yield _row(record, at, fill(role, record["tools"], history, thought, wording), turn["value"])
            if not is_left_out(turn):
                history += history_item(turn["from"], turn["value"])


def _row(record: dict[str, Any], at: int, prompt: str, target: str) -> Row:
    return {"tools": record["tools"], "history": record["conversations"][:at], "input": prompt, "target": target}


def _next(turns: list[Turn], at: int) -> Turn:
    """The turn after this one; one that nobody says at the end."""
    return turns[at + 1] if at + 1 < len(turns) else {"from": None, "value": ""}


def _is_invented(turn: Turn) -> bool:
    return turn["from"] == "caller" and _INVENTED in turn["value"]


def _is_no_answer(turn: Turn) -> bool:
    return turn["from"] == "conclusion" and turn["value"] == NO_ANSWER


def _is_planner_row(turns: list[Turn], at: int) -> bool:
    following = _next(turns, at)
    if turns[at]["from"] != "assistant" or _is_invented(following):
        return False
    return _GIVE_UP in turns[at]["value"] or following["from"] in ("caller", "conclusion")


_IS_ROW: dict[PaperRole, Callable[[list[Turn], int], bool]] = {
    "planner": _is_planner_row,
    "caller": lambda turns, at: turns[at]["from"] == "caller" and not _is_invented(turns[at]),
    "summarizer": lambda turns, at: turns[at]["from"] == "conclusion" and not _is_no_answer(turns[at]),
}
_LEFT_OUT: dict[PaperRole, Callable[[Turn], bool]] = {"caller": _is_invented, "summarizer": _is_no_answer}


# ---- the backbone ---------------------------------------------------------------------------------------------------


def _backbone(records: Iterable[dict[str, Any]], wording: Wording) -> Iterator[Row]:
    prompt: str | None = None
    for record in records:
        turns = record["conversations"]
        history = ""
        for at, turn in enumerate(turns):
            if turn["from"] == "assistant":
                step = _step(turn["value"], _next(turns, at))
                if step is not None:
                    if prompt is None or _GIVE_UP not in turn["value"]:
                        prompt = fill("backbone", record["tools"], history, wording=wording)
                    yield _row(record, at, prompt, step)
                history += history_item("assistant", turn["value"] if step is None else step)
            elif turn["from"] in ("user", "observation"):
                history += history_item(turn["from"], turn["value"])


def _step(planner: str, following: Turn) -> str | None:
    """What the backbone writes in one step; None if the planner turn decided nothing."""
    if _GIVE_UP in planner:
        return f"{planner.replace(_GIVE_UP, '').strip()}\nconclusion: give up."
    if following["from"] == "caller":
        return f"{planner.replace('Next: caller.', '').strip()}\n{following['value']}"
    if following["from"] == "conclusion":
        return f"{planner.replace('Next: conclusion.', '').strip()}\nconclusion: {following['value']}"
    return None


# ---- trajectories from elsewhere ------------------------------------------------------------------------------------


def one_call_a_step(trajectory: Trajectory) -> Trajectory:
    """The trajectory with a turn for each call."""
    messages: list[Message] = []
    placed: set[str] = set()
    for at, message in enumerate(trajectory.messages):
        if isinstance(message, AssistantMessage):
            steps = _steps(message, trajectory.messages[at + 1 :])
            placed = {step.tool_call_id for step in steps if isinstance(step, ToolMessage)}
            messages += steps
        elif not isinstance(message, ToolMessage) or message.tool_call_id not in placed:
            messages.append(message)
    return replace(trajectory, messages=tuple(messages))


def _steps(message: AssistantMessage, following: Iterable[Message]) -> list[Message]:
    """A turn as it is or, if it makes several calls, one turn for each, followed by its observation."""
    if len(message.tool_calls) < 2:
        return [message]
    replies = {m.tool_call_id: m for m in takewhile(lambda m: isinstance(m, ToolMessage), following)
               if isinstance(m, ToolMessage)}  # fmt: skip
    steps: list[Message] = []
    for call in message.tool_calls:
        first = replace(message, tool_calls=(call,))
        steps.append(AssistantMessage(tool_calls=(call,)) if steps else first)
        if call.id in replies:
            steps.append(replies[call.id])
    return steps


FORMAT = Format("paper-rows", "the paper's rows of one role (--role): tools, history, input, target", rows=rows)
