"""What a judge is asked: four functions, each with a prompt, in our words or in those of a ToolEval folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from alpha_umi.errors import DataError

FunctionName = Literal["check_answer_status", "parse_answer_status", "check_task_solvable", "select_better_answer"]
Reason = Literal["none", "first", "last"]
"""Where the judge gives its reason: before its verdict it thinks, after it it justifies."""
CHECK_ANSWER: FunctionName = "check_answer_status"
CHECK_RUN: FunctionName = "parse_answer_status"
CHECK_TASK: FunctionName = "check_task_solvable"
SELECT: FunctionName = "select_better_answer"
NEITHER = 2
"""The ``index`` of a judge who finds two answers equally good; the original wording doesn't offer it."""

_FIELDS: Mapping[FunctionName, tuple[str, ...]] = {
    CHECK_ANSWER: ("query", "answer"), CHECK_RUN: ("query", "answer"), CHECK_TASK: ("task",),
    SELECT: ("query", "answer_0", "answer_1"),
}  # fmt: skip
_FIELD = re.compile(r"\{(\w+)\}")
_REASON = {"type": "string", "description": "explain your answer."}


@dataclass(frozen=True)
class Function:
    """A function that the judge has to call.

    Attributes:
        schema: The function object: name, description, parameters.
        prompt: With ``{fields}`` to be filled in.
    """

    schema: Mapping[str, Any]
    prompt: str

    def asking(self, reason: Reason) -> Mapping[str, Any]:
        """The schema, with a required text ``reason`` if there is to be one."""
        if reason == "none":
            return self.schema
        parameters = self.schema["parameters"]
        required = [*parameters.get("required", []), "reason"]
        added = {"reason": _REASON}
        first, second = (added, parameters["properties"]) if reason == "first" else (parameters["properties"], added)
        return {**self.schema, "parameters": {**parameters, "properties": {**first, **second}, "required": required}}


@dataclass(frozen=True)
class Question:
    """One question to a judge.

    Attributes:
        name: The function that answers it.
        schema: What may be answered.
        prompt: The whole text.
        vote: Which of several independent votes this is, from 0.
        subject: Whom it is about: the query id and the systems, in the order they are shown. The judge isn't told.
    """

    name: FunctionName
    schema: Mapping[str, Any]
    prompt: str
    vote: int = 0
    subject: tuple[str, ...] = ()


@dataclass(frozen=True)
class Templates:
    """The four functions, and what tells this wording from another."""

    functions: Mapping[FunctionName, Function]
    fingerprint: str

    def ask(
        self,
        name: FunctionName,
        values: Mapping[str, str],
        subject: tuple[str, ...],
        vote: int,
        reason: Reason = "first",
    ) -> Question:
        """Fills in a prompt. Values are put in as they are, braces and all."""
        function = self.functions[name]
        prompt = _FIELD.sub(lambda found: values.get(found[1], found[0]), function.prompt)
        return Question(name, function.asking(reason), prompt, vote, subject)


def load_templates(folder: Path | None = None) -> Templates:
    """Our wording, or that of a folder with ToolEval's ``config.yaml`` and ``template.txt``.

    Raises:
        DataError: A file is missing, or lacks a function or a field of one.
    """
    if folder is None:
        return _own()
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        schemas = {schema["name"]: schema for schema in config["completions_kwargs"]["functions"]}
        path = folder / config.get("prompt_template", "template.txt")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(path, error.strerror or "can't be read") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise DataError(
            path, "not the configuration of a ToolEval judge: completions_kwargs.functions is read"
        ) from error
    return _checked(path, schemas, dict(_sections(text)))


def _sections(text: str) -> list[tuple[str, str]]:
    """Names and prompts, verbatim: line breaks at either end are part of a published prompt."""
    found = []
    for function in re.findall(r"<function>(.*?)</function>", text, re.DOTALL):
        name = re.search(r"<name>(.*?)</name>", function, re.DOTALL)
        prompt = re.search(r"<description>(.*?)</description>", function, re.DOTALL)
        if name and prompt:
            found.append((name[1], prompt[1]))
    return found


def _checked(path: Path, schemas: Mapping[str, Any], prompts: Mapping[str, str]) -> Templates:
    functions: dict[FunctionName, Function] = {}
    for name, fields in _FIELDS.items():
        if name not in schemas or name not in prompts:
            raise DataError(path, f"the function {name} has no {'prompt' if name in schemas else 'schema'}")
        lacking = set(fields) - set(_FIELD.findall(prompts[name]))
        if lacking:
            raise DataError(path, f"the prompt of {name} lacks {{{min(lacking)}}}")
        functions[name] = Function(schemas[name], prompts[name])
    return Templates(functions, _fingerprint(functions))


@lru_cache(maxsize=1)
def _own() -> Templates:
    path = files("alpha_umi.judges") / "wording.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    functions = {name: Function(_schema(name, section), section["prompt"]) for name, section in content.items()}
    return Templates(functions, _fingerprint(functions))


def _schema(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    kind = "integer" if isinstance(section["choices"][0], int) else "string"
    parameters = {
        "type": "object",
        "properties": {section["field"]: {"type": kind, "enum": section["choices"]}},
        "required": [section["field"]],
    }
    return {"name": name, "description": section["description"], "parameters": parameters}


def _fingerprint(functions: Mapping[FunctionName, Function]) -> str:
    content = {name: [function.schema, function.prompt] for name, function in functions.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
