"""TRL's conversational data: ``messages`` and ``tools``, or ``prompt`` and ``completion`` as two lists of messages.

The messages are OpenAI's, with these habits of chat templates: ``arguments`` is an object, ids may be missing, an
observation names its tool, a rationale may be ``thinking`` (gpt-oss). ``tools`` are JSON Schemas as a list or, so that
Arrow needn't merge their types, a string of JSON. The text form (``text``, or ``prompt`` as a string) has no turns, and
preference data has two conversations in one record: both are rejected.

Written arguments are objects: their value is the same, white space and the form of numbers may not be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from alpha_umi.data.format import Format
from alpha_umi.data.openai_messages import Dialect, looks_like_messages, read_record, write_record
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import Trajectory

NAMESPACE = "trl"
TRL = Dialect(NAMESPACE, objects=True, names=True)

_NOT_OURS = {
    "text": "a record of one text has no turns",
    "chosen": "preference data holds two conversations in one record",
    "completions": "stepwise supervision has no turns",
}


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of one record; of ``prompt`` and ``completion``, it remembers where one ends."""
    if not isinstance(record, dict) or "messages" in record:
        return read_record(record, name, TRL)
    for key, complaint in _NOT_OURS.items():
        if key in record:
            raise RecordError(complaint)
    prompt, completion = record.get("prompt"), record.get("completion")
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise RecordError("neither messages nor a prompt and a completion that are lists of messages")
    rest = {key: value for key, value in record.items() if key not in ("prompt", "completion")}
    trajectory = read_record(rest | {"messages": prompt + completion}, name, TRL)
    notes = {**trajectory.extra.get(NAMESPACE, {}), "prompt": len(prompt)}
    return replace(trajectory, extra={**trajectory.extra, NAMESPACE: notes})


def write(trajectory: Trajectory) -> dict[str, Any]:
    """``messages`` and ``tools``, or ``prompt``, ``completion`` and ``tools`` if it came so."""
    record = write_record(trajectory, TRL)
    prompt = trajectory.extra.get(NAMESPACE, {}).get("prompt")
    if prompt is None:
        return record
    messages = record.pop("messages")
    return record | {"prompt": messages[:prompt], "completion": messages[prompt:]}


def looks_like(record: Any) -> bool:
    """Whether it has a prompt and a completion that are lists of messages (with ``messages`` it is OpenAI's)."""
    return (
        isinstance(record, dict)
        and looks_like_messages(record.get("prompt"))
        and looks_like_messages(record.get("completion"))
    )


FORMAT = Format(
    "trl", "TRL's conversational data: `messages`, or `prompt` and `completion`, and `tools`", read, looks_like,
    write=write,
)  # fmt: skip
