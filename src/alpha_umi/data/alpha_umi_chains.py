"""α-UMi's stage 1 data: ToolBench's chains with the tools as the paper describes them.

A record is ``{"tools": [{"Name", "function", "input"}], "instruction", "chains": [message]}``. A message has ``role``
(system, user, assistant, function) and ``content``, an assistant perhaps a ``function_call`` with ``name`` and
``arguments``, a function message the function's ``name``, a hint of the search ``"valid": false``. How a chain is read
is told in `function_chains`.

Written again, a record is the same JSON value. Written as `alpha-umi`, it is what the reference code's second
preprocessing makes of it (`alpha_umi.stage_2`).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.alpha_umi import ToolDocument, read_tools, tool_document
from alpha_umi.data.format import Format
from alpha_umi.data.function_chains import NAMESPACE as CHAIN
from alpha_umi.data.function_chains import ChainMessage, read_chain, turn_json, turns_of, write_chain
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import Trajectory

NAMESPACE = "alpha-umi-1"

_ROLES = {"system", "user", "assistant", "function"}


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    tools: list[ToolDocument]
    instruction: str
    chains: list[ChainMessage] = Field(min_length=1)


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record."""
    parsed = _Record.model_validate(record)
    system, messages = read_chain(turns_of(parsed.chains))
    trajectory = Trajectory(read_tools(record["tools"]), messages, name, {CHAIN: {"system": system}})
    if not any(message.role == "user" for message in messages):
        raise RecordError("the chain has no user message")
    rest: dict[str, Any] = dict(parsed.model_extra or {})
    if parsed.instruction != trajectory.instruction:
        rest["instruction"] = parsed.instruction
    if not rest:
        return trajectory
    return Trajectory(trajectory.tools, messages, name, {**trajectory.extra, NAMESPACE: rest})


def looks_like(record: Any) -> bool:
    """Whether it has chains of messages whose roles are the format's own."""
    messages = record.get("chains") if isinstance(record, dict) else None
    if not isinstance(messages, list) or not messages:
        return False
    return all(isinstance(m, dict) and isinstance(m.get("role"), str) and m["role"] in _ROLES for m in messages)


def write(trajectory: Trajectory) -> dict[str, Any]:
    """The record of a trajectory; without the search's prompt if the trajectory didn't come from a chain.

    Raises:
        RecordError: A turn makes several calls or says nothing, or a system message is not the first.
    """
    return {
        "tools": [tool_document(tool) for tool in trajectory.tools],
        "instruction": trajectory.instruction,
        **trajectory.extra.get(NAMESPACE, {}),
        "chains": [turn_json(turn) for turn in write_chain(trajectory)],
    }


FORMAT = Format(
    "alpha-umi-1", "α-UMi's `chains` (stage 1): ToolBench's messages with a `function_call` and `Finish`",
    read, looks_like, write=write,
)  # fmt: skip
