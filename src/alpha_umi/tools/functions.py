"""Functions of a Python module as tools: what their hints and docstrings say, and calling them.

The JSON Schema and the validation both come from pydantic, so what the schema promises is what is checked: dataclasses,
enums, dates, ``Literal``, ``Annotated[int, Field(ge=1)]`` and so on. Descriptions come from a Google-style docstring.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NotRequired, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import TypedDict

from alpha_umi.errors import ToolError, UserError
from alpha_umi.tools.base import WRITES_MARK
from alpha_umi.validation import not_finite

_SECTION = re.compile(
    r"(Args|Arguments|Parameters|Keyword Args|Returns?|Raises|Yields?|Examples?|Notes?|Warnings?|Attributes|References|"
    r"See Also|Todo):\s*"
)
_ARGUMENTS = ("Args", "Arguments", "Parameters", "Keyword Args")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)")


@dataclass(frozen=True)
class Function:
    """A function that can be called with JSON arguments.

    Attributes:
        name: Its name.
        description: The docstring up to its first section.
        parameters: JSON Schema of the arguments.
        writes: Whether it is marked with `alpha_umi.tools.writes`.
        asynchronous: Whether calls of it can run side by side.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    writes: bool
    asynchronous: bool
    _function: Callable[..., Any]
    _arguments: TypeAdapter[Any]

    @classmethod
    def of(cls, name: str, function: Callable[..., Any]) -> Function:
        """Reads a function's hints and docstring.

        Raises:
            UserError: It can't be called with JSON arguments.
        """
        description, described = read_docstring(function.__doc__ or "")
        parameters = _named_parameters(name, function)
        arguments = _adapter(name, function, parameters)
        schema = _schema(name, arguments, parameters, described)
        marked = getattr(function, WRITES_MARK, False)
        asynchronous = inspect.iscoroutinefunction(inspect.unwrap(function))
        return cls(name, description, schema, marked, asynchronous, function, arguments)

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Validates and coerces the arguments, calls the function and gives its result as text.

        Raises:
            ToolError: ``invalid_arguments`` or ``bad_result``.
            Exception: Whatever the function raises.
        """
        try:
            values = self._arguments.validate_python(arguments)
        except ValidationError as error:
            raise ToolError("invalid_arguments", _complaint(error)) from error
        result = self._function(**values)
        return result_text(await result if inspect.isawaitable(result) else result)


def load_module(spec: str) -> ModuleType:
    """Imports a module: a file (``tools.py``), or a name (``package.module``), which may be in the working directory.

    Raises:
        BaseException: Whatever importing it raises.
    """
    if not spec.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        return importlib.import_module(spec)
    path = Path(spec).resolve()
    sys.path.insert(0, str(path.parent))
    name = f"tools_of_{path.stem}"  # its own name could be that of a module it imports
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def public_functions(module: ModuleType) -> list[Function]:
    """The functions of ``__all__``; without it those defined in the module whose names have no leading underscore.

    Raises:
        UserError: One of them can't be a tool, ``__all__`` names something that isn't there, or there are none.
    """
    names = getattr(module, "__all__", None)
    if names is None:
        public = {name: member for name, member in vars(module).items() if not name.startswith("_")}
        members = {n: member for n, member in public.items() if getattr(member, "__module__", None) == module.__name__}
    else:
        missing = [name for name in names if not hasattr(module, name)]
        if missing:
            raise UserError(f"its __all__ names {missing[0]!r}, which it doesn't have")
        members = {name: getattr(module, name) for name in names}
    functions = {name: member for name, member in members.items() if _is_function(member)}
    if not functions:
        raise UserError("it has no public function; define one, or name those to use in __all__")
    return [Function.of(name, function) for name, function in functions.items()]


def _is_function(member: Any) -> bool:
    """Whether it is a function, perhaps behind decorators (``functools.cache`` leaves no function)."""
    return callable(member) and not inspect.isclass(member) and inspect.isfunction(inspect.unwrap(member))


def read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The description and the parameters' descriptions of a Google-style docstring; other styles are all description.

    A parameter is ``name: text`` or ``name (type): text``; deeper lines belong to the one above.
    """
    description: list[str] = []
    described: dict[str, list[str]] = {}
    section, depth, last = "", 0, ""
    for line in inspect.cleandoc(docstring).splitlines():
        text, indent = line.strip(), len(line) - len(line.lstrip())
        heading = _SECTION.fullmatch(line)
        if heading is not None:
            section, depth, last = heading[1], 0, ""
        elif not section:
            description.append(line)
        elif section in _ARGUMENTS and text and indent:
            depth = depth or indent
            entry = _ENTRY.fullmatch(text) if indent <= depth else None
            if entry is not None:
                last = entry[1]
                described[last] = [entry[2]]
            elif last:
                described[last].append(text)
    return "\n".join(description).strip(), {name: " ".join(lines).strip() for name, lines in described.items()}


def result_text(value: Any) -> str:
    """What a function returned, as text: a string as it is, anything else as JSON.

    Raises:
        ToolError: ``bad_result``: it can't be written as JSON (nested too deeply, or in itself).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    try:
        return json.dumps(to_jsonable_python(value, fallback=str, bytes_mode="base64"), ensure_ascii=False)
    except Exception as error:  # whatever the value's own methods raise
        raise ToolError("bad_result", f"the tool's result can't be written as JSON: {error}") from error


# ---- hints ----------------------------------------------------------------------------------------------------------


class _Untitled(GenerateJsonSchema):
    """JSON Schema as short as models are used to: no titles that repeat a field's name, the type first."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value


def _named_parameters(name: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name; ``*args`` and ``**kwargs`` are left out."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.POSITIONAL_ONLY for parameter in parameters.values()):
        raise UserError(f"{name} has parameters that can't be given by name; take the '/' out of its signature")
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {key: parameter for key, parameter in parameters.items() if parameter.kind not in variable}


def _adapter(name: str, function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> TypeAdapter[Any]:
    """Validates a dictionary of arguments; what is not given is left to the function's own default."""
    try:
        hints = get_type_hints(function, include_extras=True)
        fields = {}
        for key, parameter in parameters.items():
            hint = hints.get(key, Any)
            fields[key] = hint if parameter.default is inspect.Parameter.empty else NotRequired[hint]
        arguments = TypedDict("arguments", fields)  # pyright: ignore[reportArgumentType]
        arguments.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportAttributeAccessIssue]
        return TypeAdapter(arguments)
    except (NameError, TypeError, PydanticUserError) as error:
        raise _no_schema(name, error) from error


def _schema(
    name: str, adapter: TypeAdapter[Any], parameters: Mapping[str, inspect.Parameter], described: Mapping[str, str]
) -> dict[str, Any]:
    """JSON Schema of the arguments, with what the docstring says of them and the defaults that JSON can hold."""
    try:
        made = adapter.json_schema(schema_generator=_Untitled)
    except PydanticUserError as error:
        raise _no_schema(name, error) from error
    properties = made.get("properties", {})
    for key, field in properties.items():
        if described.get(key):
            field.setdefault("description", described[key])
        default = parameters[key].default
        if default is not inspect.Parameter.empty and default is not None:
            with contextlib.suppress(PydanticSerializationError):
                written = to_jsonable_python(default)
                if not_finite(written) is None:
                    field.setdefault("default", written)
    problem = not_finite(made)
    if problem is not None:
        raise _no_schema(name, ValueError(problem))
    # that no other argument is taken goes without saying
    return {"type": "object", "properties": properties} | {
        key: made[key] for key in ("required", "$defs") if key in made
    }


def _no_schema(name: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0].split(". ")[0]  # what follows is for those who use pydantic
    return UserError(f"the type hints of {name} can't be turned into a JSON Schema: {reason}; give other types")


def _complaint(error: ValidationError) -> str:
    """The first violation, in words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
