"""What a task is: an instruction, its tools, the tables behind them, and what goes wrong when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alpha_umi.trajectory import Tool

Row = dict[str, Any]
Tables = dict[str, list[Row]]
Shape = Literal["I1", "I2", "I3"]
Kind = Literal[
    "single", "multi", "chain", "parallel", "missing", "impossible", "retry", "alternative", "blocked", "empty"
]
KINDS: tuple[Kind, ...] = (
    "single", "multi", "chain", "parallel", "missing", "impossible", "retry", "alternative", "blocked", "empty",
)  # fmt: skip
TRANSIENT = ("timeout", "server_error", "unavailable")
NOT_AUTHORISED = "not_authorised"


@dataclass(frozen=True)
class Fault:
    """A planned failure of one tool.

    Attributes:
        tool: The tool's name.
        kind: ``timeout``, ``server_error``, ``unavailable`` or ``not_authorised``.
        nth: The number of the call that fails, from 1; 0 for every call.
    """

    tool: str
    kind: str
    nth: int = 0


@dataclass(frozen=True)
class Ref:
    """An argument that is an earlier call's result: the ``field`` that ``step`` gave."""

    step: int
    field: str


@dataclass(frozen=True)
class Step:
    """One call that solves part of the instruction.

    Attributes:
        tool: The tool's name.
        arguments: What the instruction gives, or a reference to an earlier result; in schema order.
        turn: Steps of one turn are called together.
    """

    tool: str
    arguments: Mapping[str, Any]
    turn: int


@dataclass(frozen=True)
class Task:
    """An instruction with everything needed to run, solve and check it; plain data.

    Attributes:
        id: Unique name, ``<split>-<seed>-<index>``.
        split: ``train`` or one of the test splits.
        kind: Which behaviour it asks for.
        shape: I1 one collection, I2 one category, I3 several categories.
        instruction: What the user says.
        tools: The tools the agent is shown.
        seed: Text that seeds everything random that happens in the world and in the oracle's wording.
        tables: Rows by collection, as the world starts.
        steps: The calls that solve it if nothing goes wrong; of an impossible task, those that no tool can make.
        requests: Each step's request in words, as the instruction has it.
        faults: What fails when.
        missing: Name of the required parameter that the instruction lacks, or None.
    """

    id: str
    split: str
    kind: Kind
    shape: Shape
    instruction: str
    tools: tuple[Tool, ...]
    seed: str
    tables: Tables
    steps: tuple[Step, ...]
    requests: tuple[str, ...]
    faults: tuple[Fault, ...] = ()
    missing: str | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        record = asdict(self) | {"tools": [tool.schema for tool in self.tools]}
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Reads what ``to_json`` wrote."""
        record = json.loads(line)
        record["tools"] = tuple(Tool(schema) for schema in record["tools"])
        record["steps"] = tuple(_step(step) for step in record["steps"])
        record["requests"] = tuple(record["requests"])
        record["faults"] = tuple(Fault(**fault) for fault in record["faults"])
        return cls(**record)


def _step(record: Mapping[str, Any]) -> Step:
    arguments = {n: Ref(**v) if isinstance(v, dict) else v for n, v in record["arguments"].items()}
    return Step(record["tool"], arguments, record["turn"])
