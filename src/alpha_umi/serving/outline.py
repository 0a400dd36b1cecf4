"""How far a call that is handed to the client is checked."""

from __future__ import annotations

from alpha_umi.trajectory import Tool
from alpha_umi.validation import declared_parameters


def outline(tool: Tool) -> Tool:
    """The tool as far as a client's call is checked here: which parameters there are, and which it needs.

    What may stand in them, the grammar has held the call to; a foreign schema's patterns and references could keep a
    validator busy for ever.
    """
    declared, required = declared_parameters(tool), tool.parameters.get("required")
    needed = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    properties = {name: {} for name in declared or ()}
    outline = {"type": "object", "properties": properties, "additionalProperties": declared is None, "required": needed}
    return Tool.of(tool.name, "", outline)
