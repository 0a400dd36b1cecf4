"""From what stands behind ``--tools`` to tool sources."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from alpha_umi.errors import DataError, UserError
from alpha_umi.tools.base import ToolSource, close
from alpha_umi.tools.combined import CombinedSource
from alpha_umi.tools.source_list import OpenApiOptions, listed_sources

KNOWN = (
    "give toolworld, toolworld:N for N tools, program (Python in a sandbox), a Python file or module, a JSON file "
    "(function schemas, ToolBench tools or an OpenAPI document), a folder of ToolBench tools, the YAML file or the URL "
    "of an OpenAPI document, or an MCP server: 'mcp:COMMAND LINE' or mcp+URL, or @FILE, a YAML or JSON list of these"
)


@dataclass(frozen=True)
class OpenTools:
    """The sources of a command, and the event loop they live in.

    Attributes:
        source: All of them as one.
        runner: Runs whatever has to do with them; `agent.run_episodes` takes it.
    """

    source: CombinedSource
    runner: asyncio.Runner


@contextmanager
def open_tools(specs: Sequence[str], query: str, openapi: OpenApiOptions | None = None) -> Iterator[OpenTools]:
    """Opens tool sources for the length of a block; however the block ends, all of them are closed.

    Args:
        specs: What stands behind ``--tools``; see `KNOWN`.
        query: What the user asks first; ToolWorld offers the tools that fit it best.
        openapi: Holds for the OpenAPI documents among them, where a list (`source_list`) says nothing else of one.

    Raises:
        UserError: There is no such source, or it can't be opened.
    """
    with asyncio.Runner() as runner:
        source = runner.run(open_sources(specs, query, openapi))
        try:
            yield OpenTools(source, runner)
        finally:
            runner.run(source.aclose())


async def open_sources(specs: Sequence[str], query: str, openapi: OpenApiOptions | None = None) -> CombinedSource:
    """Opens tool sources in the running event loop; see `open_tools`. If one can't be opened, the others are closed."""
    options = openapi or OpenApiOptions()
    async with AsyncExitStack() as stack:
        sources: list[ToolSource] = []
        for listed in listed_sources(specs, options):
            sources.append(await _open(listed.spec, query, listed.openapi))
            stack.push_async_callback(close, sources[-1])
            if listed.entry:
                _check_takes_options(listed.entry, sources[-1])
        stack.pop_all()
    return CombinedSource(sources)


def _check_takes_options(entry: str, opened: ToolSource) -> None:
    from alpha_umi.tools.openapi import OpenApiSource

    if not isinstance(opened, OpenApiSource):
        raise UserError(f"{entry}: only, tag, auth and base_url are for OpenAPI documents; leave them out of this one")


async def _open(spec: str, query: str, openapi: OpenApiOptions) -> ToolSource:
    kind, path = spec.partition(":")[0], Path(spec)
    if kind == "toolworld":
        return _open_toolworld(spec, query)
    if spec == "program":
        from alpha_umi.tools.program import open_programs

        return await open_programs()
    if kind in ("mcp", "mcp+http", "mcp+https"):
        return await _open_mcp(spec)
    if kind in ("http", "https") or path.suffix in (".yaml", ".yml"):
        return await _open_openapi(spec, openapi)
    if path.suffix == ".json":
        return await _open_json(spec, openapi)
    if spec and path.is_dir() and not (path / "__init__.py").exists():
        from alpha_umi.tools.schema import SchemaSource
        from alpha_umi.tools.toolbench import read_toolbench

        return SchemaSource(read_toolbench(path))
    from alpha_umi.tools.python_module import is_module, open_python_module

    if path.suffix != ".py" and not is_module(spec):
        raise UserError(f"--tools {spec!r}: no such source; {KNOWN}")
    return await open_python_module(spec)


def _open_toolworld(spec: str, query: str) -> ToolSource:
    from alpha_umi.tools.toolworld import ToolWorldSource
    from alpha_umi.toolworld.open_world import OpenWorld

    number = spec.partition(":")[2]
    if not (number.isdecimal() or spec == "toolworld"):
        raise UserError(f"--tools {spec!r}: no such source; {KNOWN}")
    count = int(number or 5)
    if not 1 <= count <= 20:
        raise UserError(f"--tools {spec!r}: between 1 and 20 tools can be offered")
    return ToolWorldSource(OpenWorld(query, count=count))


async def _open_openapi(spec: str, options: OpenApiOptions) -> ToolSource:
    try:
        from alpha_umi.tools.openapi import open_openapi
    except ModuleNotFoundError as error:
        raise UserError(f"OpenAPI documents need the package {error.name}: install alpha-umi[tools]") from error
    return await open_openapi(
        spec, only=options.only, tags=options.tags, base_url=options.base_url, auth=options.variables()
    )


async def _open_mcp(spec: str) -> ToolSource:
    try:
        from alpha_umi.tools.mcp import open_mcp
    except ModuleNotFoundError as error:
        raise UserError(f"MCP servers need the package {error.name}: install alpha-umi[tools]") from error
    return await open_mcp(spec)


async def _open_json(spec: str, openapi: OpenApiOptions) -> ToolSource:
    """A JSON file says itself what it is."""
    from alpha_umi.tools.schema import SchemaSource, read_schemas
    from alpha_umi.tools.toolbench import looks_like_toolbench, read_toolbench

    path = Path(spec)
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(path, f"can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not JSON: {error}") from error
    if isinstance(value, dict) and value.keys() & {"openapi", "swagger"}:
        return await _open_openapi(spec, openapi)
    if looks_like_toolbench(value):
        return SchemaSource(read_toolbench(path))
    if isinstance(value, list) and value:
        return SchemaSource(read_schemas(path))
    raise DataError(path, "neither a list of function schemas nor ToolBench tools nor an OpenAPI document")
