"""OpenAI function schemas without an executor: whoever runs the agent makes the calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alpha_umi.data.records import RecordError
from alpha_umi.data.tool_schemas import read_tools
from alpha_umi.errors import DataError
from alpha_umi.trajectory import Tool
from alpha_umi.validation import not_finite


class SchemaSource:
    """Tools that are only described. A call of one ends the run and is handed out."""

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self.tools = tools
        self.client = frozenset(tool.name for tool in tools)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Nobody may ask for it."""
        raise RuntimeError(f"{name} has no executor: its calls are for whoever runs the agent")


def read_schemas(path: Path) -> tuple[Tool, ...]:
    """The tools of a JSON list of function schemas, wrapped (``{"type": "function", ...}``) or bare, kept verbatim.

    Raises:
        DataError: The file can't be read, or it is no such list.
    """
    try:
        tools, _ = read_tools(path.read_text("utf-8"), "openai")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, f"can't be read: {error}") from error
    except RecordError as error:
        raise DataError(path, str(error)) from error
    except RecursionError as error:
        raise DataError(path, "nested too deeply") from error
    for tool in tools:
        problem = not_finite(tool.function)
        if problem is not None:
            raise DataError(path, f"the schema of {tool.name!r} is no JSON: {problem}")
    return tuple(Tool(tool.schema) for tool in tools)
