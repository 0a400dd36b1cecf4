"""What a judge file says: the endpoint that judges, how it samples, and what its tokens cost."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alpha_umi.engines.openai_config import Endpoint
from alpha_umi.errors import UserError

_NOT_FOR_JUDGES = ("api", "rationale", "system", "shots", "structured_outputs")
_DECIDING = {"base_url", "model", "max_tokens", "sampling", "extra_body"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Section):
    """What a million tokens cost, in any currency.

    Attributes:
        prompt: Read.
        completion: Written.
    """

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class JudgeFile(_Section):
    """The contents of a judge file.

    Attributes:
        judge: Where it is; the keys of an engine file's endpoint that concern judges (docs/engines.md).
        temperature: Of every vote; at 0 the votes of one judge mostly agree and tell nothing of its doubts.
        max_tokens: Longest reply, unless the endpoint says otherwise.
        price: Of its tokens; None reports tokens only.
    """

    judge: Endpoint
    temperature: float = Field(default=0.2, ge=0, le=2)
    max_tokens: int = Field(default=1000, ge=16)
    price: Price | None = None

    @field_validator("judge")
    @classmethod
    def _is_asked_in_chat(cls, value: Endpoint) -> Endpoint:
        wrong = [name for name in _NOT_FOR_JUDGES if name in value.model_fields_set]
        if wrong:
            raise ValueError(f"{wrong[0]} is not for judges: they are asked one question each, by chat")
        return value

    @property
    def deciding(self) -> str:
        """What decides its answers, as text: not the key, time-outs, concurrency or prices."""
        endpoint = self.judge.model_dump(include=_DECIDING)
        return json.dumps([endpoint, self.temperature, self.max_tokens], sort_keys=True)


def load_judge_file(path: Path) -> JudgeFile:
    """Reads a judge file (YAML).

    Raises:
        UserError: It is missing or no YAML mapping, or a key or value is wrong; no value is shown, it may be a secret.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"judge file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"judge file {path} is not YAML") from error
    if not isinstance(content, dict):
        raise UserError(f"judge file {path}: it is a mapping with 'judge' (an endpoint), and perhaps 'temperature'")
    try:
        return JudgeFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"judge file {path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
