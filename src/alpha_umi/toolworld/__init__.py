"""ToolWorld: a deterministic, stateful world of executable tools, to train and to evaluate on without a network.

It stands in for a service with thousands of live APIs and is built like one: categories hold collections, a collection
offers APIs with JSON-Schema parameters, and all of it is declared as data in ``catalogue/*.toml`` over eight generic
operations. A **task** is an instruction, four to six tools, the tables behind them and a schedule of faults. Its names,
ids and numbers are invented afresh for each task, so nothing about them can be memorised, only copied.

    >>> from alpha_umi.toolworld import Outcome, World, check, make_tasks, solve
    >>> task = next(task for task in make_tasks("I1-Inst", 100) if task.kind == "chain")
    >>> task.instruction
    'First tell me the driver of the cab ride RD-2297, then find cab rides of that driver.'
    >>> trajectory = solve(task)                    # the oracle: rationales, calls, observations, the answer
    >>> world = World(task)                         # a world of one's own to act in
    >>> call = trajectory.messages[1].tool_calls[0]
    >>> observation = world.call(call.name, call.parsed())   # JSON text, or ToolError where a fault is planned
    >>> check(task, world, Outcome(answer="I don't know.")).solved
    False

What a task asks for is its ``kind``: ``single``, ``multi``, ``chain`` (a call needs an earlier result), ``parallel``
(several calls in one turn), ``missing`` (ask for the parameter), ``impossible`` (give up: no tool fits), ``retry`` (a
failure that goes away), ``alternative`` (a tool is down or not authorised, another does the same), ``blocked``
(nothing else does the same: give up) and ``empty`` (nothing is found: say so).

The splits follow ToolBench: I1 stays in one collection, I2 in one category, I3 needs several; *Inst* are unseen
instructions for the collections of the training data, *Tool* unseen collections of its categories, *Cat* unseen
categories. Tool and Cat use names that the training data never has.

`make_conversations` asks several things of the same tools, one after another, in one world.

What it does not do: no concurrency within a world, no free text. The oracle's answers are one way to say it; the
checker wants the facts, not the wording.
"""

from alpha_umi.toolworld.catalogue import Catalogue, load_catalogue
from alpha_umi.toolworld.checker import Outcome, Verdict, check
from alpha_umi.toolworld.conversations import make_conversations
from alpha_umi.toolworld.oracle import solve
from alpha_umi.toolworld.splits import SPLITS, make_task, make_tasks, split_trajectories
from alpha_umi.toolworld.tasks import KINDS, Fault, Kind, Task
from alpha_umi.toolworld.world import World, fault_text

__all__ = [
    "KINDS",
    "SPLITS",
    "Catalogue",
    "Fault",
    "Kind",
    "Outcome",
    "Task",
    "Verdict",
    "World",
    "check",
    "fault_text",
    "load_catalogue",
    "make_conversations",
    "make_task",
    "make_tasks",
    "solve",
    "split_trajectories",
]
