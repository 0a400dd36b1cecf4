"""What an engine file says: which OpenAI-compatible endpoint speaks for whom.

Either one ``agent``, a model that calls functions, or a ``planner``, a ``caller`` and a ``summarizer``; with ``run``,
models of that run directory, prompted with its token ids. Keys are named by their environment variable and are never in
the file, in a message or in a representation of these classes.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from alpha_umi.errors import UserError
from alpha_umi.transcript import ROLES, Voice

Api = Literal["chat", "completions"]
RationaleAs = Literal["content", "reasoning_content", "drop"]

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_CHAT_ONLY = ("shots", "system", "rationale")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shots(_Section):
    """Examples that are put before the conversation.

    Attributes:
        file: JSONL of trajectories.
        count: How many, from the beginning of the file.
    """

    file: Path
    count: int = Field(default=3, ge=1, le=64)


class Endpoint(_Section):
    """A model behind an OpenAI-compatible server.

    Attributes:
        base_url: Up to and with ``/v1``.
        model: The server's name for it; of vLLM, a LoRA module has a name of its own.
        api_key_env: The environment variable that holds the key; None sends none.
        api: ``completions`` takes token ids and needs ``run``; None is ``completions`` with a run, otherwise ``chat``.
        timeout: Seconds one attempt may take.
        max_retries: Attempts after the first, of what the server or the network did wrong (408, 409, 429, 5xx).
        concurrency: Requests at one time.
        max_tokens: Longest reply in the model's own tokens; None is what the request allows. A model that thinks
            before it answers needs more than that.
        max_tokens_field: How the server calls it.
        sampling: Send temperature, top_p and seed; false is for models that refuse them.
        rationale: Where the rationale of an earlier turn goes: beside its calls as content, into a field of its own,
            or nowhere. Only for ``agent``.
        system: Put before an agent's conversation; of a role, in place of its instruction.
        shots: Few-shot examples.
        structured_outputs: ``vllm`` holds a caller to the JSON schema of one call, ``vllm-grammar`` all roles to the
            very grammars of the in-process engine (which only vLLM's ``guidance`` backend can read).
        extra_body: Further fields of every request.
    """

    base_url: str
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    api: Api | None = None
    timeout: float = Field(default=120.0, gt=0)
    max_retries: int = Field(default=4, ge=0, le=20)
    concurrency: int = Field(default=8, ge=1, le=256)
    max_tokens: int | None = Field(default=None, ge=1)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sampling: bool = True
    rationale: RationaleAs = "content"
    system: str | None = None
    shots: Shots | None = None
    structured_outputs: Literal["off", "vllm", "vllm-grammar"] = "off"
    extra_body: dict[str, Any] = {}

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            bare = parts.username is None and not parts.query and not parts.fragment
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and bare
        except ValueError:
            good = False
        if not good:
            raise ValueError("write it like http://127.0.0.1:8000/v1, without a key in it (api_key_env names one)")
        return value.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise ValueError("name the environment variable that holds the key, in capitals, such as OPENAI_API_KEY")
        return value

    @field_validator("extra_body")
    @classmethod
    def _is_not_ignored(cls, value: dict[str, Any]) -> dict[str, Any]:
        old = next((name for name in value if name.startswith("guided_")), None)
        if old is not None:
            raise ValueError(f"vLLM ignores {old} silently; take structured_outputs: vllm")
        return value

    @property
    def key(self) -> str | None:
        """The key, read from the environment now.

        Raises:
            UserError: The variable isn't set.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UserError(f"the environment variable {self.api_key_env}, which the engine file names, is not set")
        return key


class OpenAIRun(_Section):
    """The contents of an engine file.

    Attributes:
        run: The run directory whose renderer and tokenizer make the prompts of ``completions`` endpoints.
        context: Tokens a transcript and what follows may have together; None takes the run's (without one: no limit,
            the server says when it is too long).
        agent: Speaks for a run of one voice, or is a function-calling chat model.
        planner: Speaks for a role, as ``caller`` and ``summarizer``.
    """

    run: Path | None = None
    context: int | None = Field(default=None, ge=64)
    agent: Endpoint | None = None
    planner: Endpoint | None = None
    caller: Endpoint | None = None
    summarizer: Endpoint | None = None

    @model_validator(mode="after")
    def _speaks_for_all(self) -> OpenAIRun:
        roles = [role for role in ROLES if getattr(self, role) is not None]
        if (self.agent is not None) == bool(roles) or (roles and len(roles) < len(ROLES)):
            raise ValueError("give either 'agent', or all of 'planner', 'caller' and 'summarizer'")
        apis = {voice: self.api(endpoint) for voice, endpoint in self.endpoints.items()}
        if self.run is None and "completions" in apis.values():
            raise ValueError(
                "api: completions sends token ids: give 'run', the run directory whose tokenizer makes them"
            )
        for voice, endpoint in self.endpoints.items():
            given = endpoint.model_fields_set
            wrong = [name for name in _CHAT_ONLY if name in given and apis[voice] == "completions"]
            wrong += ["structured_outputs"] if endpoint.structured_outputs != "off" and apis[voice] == "chat" else []
            if wrong:
                raise ValueError(f"{_key(voice)}: {wrong[0]} is not for api: {apis[voice]}")
        return self

    def api(self, endpoint: Endpoint) -> Api:
        """How the endpoint is asked."""
        return endpoint.api or ("completions" if self.run is not None else "chat")

    @property
    def endpoints(self) -> Mapping[Voice, Endpoint]:
        """Who speaks where."""
        if self.agent is not None:
            return {"assistant": self.agent}
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}

    @property
    def prompted(self) -> bool:
        """Whether the models are prompted with messages, at least one of them, and not only with a run's token ids."""
        return any(self.api(endpoint) == "chat" for endpoint in self.endpoints.values())


def load_openai_run(path: Path) -> OpenAIRun:
    """Reads an engine file (YAML).

    Raises:
        UserError: It is missing or no YAML mapping, or a key or value is wrong; no value is shown, it may be a secret.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"engine file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise UserError(f"engine file {path} is not YAML{where}") from error
    if not isinstance(content, dict):
        raise UserError(f"engine file {path}: it is a mapping with 'agent', or 'planner', 'caller' and 'summarizer'")
    try:
        return OpenAIRun.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        raise UserError(f"engine file {path}: " + "; ".join(map(_explain, problems[:3]))) from error


def _key(voice: Voice) -> str:
    return "agent" if voice == "assistant" else voice


def _explain(problem: Any) -> str:
    """One pydantic complaint as: where, what is wrong, what was perhaps meant."""
    where = [str(part) for part in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        complaint = f"{'.'.join(where)}: " if where else ""
        return complaint + problem["msg"].removeprefix("Value error, ")
    sections: dict[int, type[BaseModel]] = {1: OpenAIRun, 2: Endpoint, 3: Shots}
    known = sorted(sections[len(where)].model_fields)
    near = difflib.get_close_matches(where[-1], known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {'.'.join(where)!r}; {hint}"
