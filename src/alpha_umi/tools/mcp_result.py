"""What MCP servers say, as tools and as text: pure functions over the protocol's types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mcp_types

from alpha_umi.errors import ToolError
from alpha_umi.tools.names import legal_name, unique_name
from alpha_umi.tools.text import stripped
from alpha_umi.trajectory import Tool, json_text
from alpha_umi.validation import not_finite

DESCRIPTION_LIMIT = 4096


@dataclass(frozen=True)
class McpTool:
    """A tool of a server, and what the server hints of it.

    Attributes:
        tool: As the agent is shown it.
        name: What the server calls it.
        writes: It may change something: the server doesn't say that it only reads, or says that it destroys.
        repeatable: Calling it twice is as good as once: it only reads, or is idempotent.
    """

    tool: Tool
    name: str
    writes: bool
    repeatable: bool


def read_tools(listed: Iterable[mcp_types.Tool]) -> tuple[tuple[McpTool, ...], dict[str, str]]:
    """The tools of a server's list, in its order, and those that can't be offered, with the reason.

    Names are made legal and unique; schemas are kept as they are.
    """
    tools: dict[str, McpTool] = {}
    left_out: dict[str, str] = {}
    for one in listed:
        problem = not_finite(one.input_schema)
        if problem is not None:
            left_out[stripped(one.name)] = f"its schema is no JSON: {problem}"
            continue
        name = unique_name(legal_name(one.name, "tool"), tools)
        hints = one.annotations or mcp_types.ToolAnnotations()
        reads = hints.read_only_hint is True and hints.destructive_hint is not True
        description = stripped(one.description or one.title or "")[:DESCRIPTION_LIMIT]
        tool = Tool.of(name, description, one.input_schema, {"mcp": {"name": stripped(one.name)}})
        tools[name] = McpTool(tool, one.name, not reads, reads or hints.idempotent_hint is True)
    return tuple(tools.values()), left_out


def result_text(result: mcp_types.CallToolResult) -> str:
    """What the agent reads of a result.

    Of a result with structured content that is shown, as JSON: texts beside it say the same. What is no text, as
    images, is a placeholder.

    Raises:
        ToolError: ``tool_error``: the tool says that it failed.
    """
    blocks: Sequence[mcp_types.ContentBlock] = result.content
    parts: list[str] = []
    if result.structured_content is not None and not result.is_error:
        parts.append(json_text(result.structured_content))
        blocks = [block for block in blocks if not isinstance(block, mcp_types.TextContent)]
    text = "\n".join([*parts, *(_shown(block) for block in blocks)])
    if result.is_error:
        raise ToolError("tool_error", text or "the tool failed and does not say why")
    return text


def _shown(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent():
            return block.text
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return _placeholder(block.mime_type, block.data)
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as resource):
            return resource.text
        case mcp_types.EmbeddedResource(resource=mcp_types.BlobResourceContents() as resource):
            return _placeholder(resource.mime_type, resource.blob)
        case mcp_types.ResourceLink():
            return f"[resource {block.name}: {block.uri}]"
        case _:
            return f"[{block.type}, not shown]"


def _placeholder(kind: str | None, base64: str) -> str:
    return f"[{kind or 'binary data'}, {len(base64.rstrip('=')) * 3 // 4} bytes, not shown]"
