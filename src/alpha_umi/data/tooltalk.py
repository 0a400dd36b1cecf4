"""ToolTalk's conversations: one JSON file each, in the folders ``easy`` and ``tooltalk``.

A turn is ``{"index", "role", "text"}``, the assistant's with ``apis``: ``[{"request": {"api_name", "parameters"},
"response", "exception"}]``. The calls were made one after the other before the text was said (some use an earlier one's
result), so each is a turn of its own. An exception's text is the observation. What the benchmark tells the assistant
about the user (``metadata``: place, time, and who is logged in) is the system message, a line a fact.

The APIs' descriptions are not in the files: the tools are those that the conversation names, inferred from its calls.
The benchmark was made for evaluation: say so where something is trained on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alpha_umi.data.format import Format, Options
from alpha_umi.data.records import RecordError, source_files
from alpha_umi.data.tool_schemas import inferred_tools, keep, read_tool_file
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
)

NAMESPACE = "tooltalk"
FOLDERS = ("easy", "tooltalk")
"""Where the data set's own folder holds conversations (``databases`` beside them holds none)."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Request(_Strict):
    api_name: str = Field(min_length=1)
    parameters: dict[str, Any]


class _Api(_Strict):
    request: _Request
    response: Any
    exception: str | None


class _Turn(_Strict):
    role: Literal["user", "assistant"]
    text: str
    index: int | None = None
    apis: list[_Api] = []


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    name: str = Field(min_length=1)
    apis_used: list[str]
    metadata: dict[str, str]
    conversation: list[_Turn] = Field(min_length=1)


def read(record: Any, name: str, documented: tuple[Tool, ...] | None = None) -> Trajectory:
    """Makes a trajectory of one conversation; of the documented tools, it shows those that the conversation names."""
    parsed = _Record.model_validate(record)
    facts = "\n".join(f"{key}: {value}" for key, value in parsed.metadata.items())
    messages: list[Message] = [SystemMessage(facts)] if facts else []
    for turn in parsed.conversation:
        messages += _turn(turn, sum(isinstance(message, ToolMessage) for message in messages))
    tools = _tools(messages, parsed.apis_used, documented)
    fields = {key: value for key, value in record.items() if key != "conversation"}
    return Trajectory(tools, tuple(messages), parsed.name, keep(NAMESPACE, fields))


def looks_like(record: Any) -> bool:
    """Whether it names the APIs that its conversation uses."""
    return isinstance(record, dict) and {"suites_used", "apis_used", "metadata", "conversation"} <= record.keys()


def _turn(turn: _Turn, made: int) -> Iterator[Message]:
    if turn.role == "user":
        if turn.apis:
            raise RecordError("the user makes a call")
        yield UserMessage(turn.text)
        return
    for number, api in enumerate(turn.apis, made + 1):
        call = ToolCall(f"call_{number}", api.request.api_name, json_text(api.request.parameters))
        yield AssistantMessage(tool_calls=(call,))
        if api.exception is None:
            yield ToolMessage(call.id, json_text(api.response))
        else:
            notes = {"exception": True} | ({} if api.response is None else {"response": api.response})
            yield ToolMessage(call.id, api.exception, keep(NAMESPACE, notes))
    yield AssistantMessage(content=turn.text)


def _tools(messages: list[Message], names: list[str], documented: tuple[Tool, ...] | None) -> tuple[Tool, ...]:
    calls = [call for message in messages if isinstance(message, AssistantMessage) for call in message.tool_calls]
    known = {tool.name: tool for tool in (*inferred_tools(calls, NAMESPACE), *(documented or ()))}
    wanted = sorted({*names, *(call.name for call in calls)})
    return tuple(known.get(name) or Tool.of(name, "", {}, keep(NAMESPACE, {"inferred": True})) for name in wanted)


def _documents(file: Path, options: Options) -> tuple[Tool, ...] | None:
    return None if options.tools is None else read_tool_file(options.tools, NAMESPACE)


def _files(path: str | Path) -> list[Path]:
    """The conversations of the data set's own folder, or the files that a path names otherwise."""
    folders = [folder for folder in (Path(path) / name for name in FOLDERS) if folder.is_dir()]
    return [file for folder in folders or [path] for file in source_files(folder)]


FORMAT = Format(
    "tooltalk", "ToolTalk's conversations: a folder of files, or the folder of its two folders", read, looks_like,
    context=_documents, files=_files,
)  # fmt: skip
