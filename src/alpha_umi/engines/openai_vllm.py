"""How vLLM serves a run: the commands that start it, and the engine file that asks it.

A run of LoRA adapters is one server, its backbone with a LoRA module a role. A run of whole models is a server a role,
one of a single model one server. Nothing is started here, and no weights are read.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.run_directory import BACKBONE, RunInfo, read_info, role_folder
from alpha_umi.transcript import ROLES

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as ``--max-lora-rank``."""

_CONCURRENCY = 32
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@dataclass(frozen=True)
class Listening:
    """Where servers are reached.

    Attributes:
        host: What they bind.
        port: Of the first; others take the next ones.
        api_key_env: The environment variable with the key they want; None wants none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key_env: str | None = None

    def base_url(self, number: int) -> str:
        """Of a server, by its number, as a client on this machine writes it."""
        bare = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{_ANYWHERE.get(self.host, bare)}:{self.port + number}/v1"


@dataclass(frozen=True)
class VllmServer:
    """One server.

    Attributes:
        model: The folder with its weights and tokenizer.
        name: What requests call it.
        dtype: What it computes in; vLLM would not take float32 by itself.
        modules: The folders of its LoRA modules, by the name that requests call them.
        rank: The largest of their ranks.
    """

    model: Path
    name: str
    dtype: str
    modules: Mapping[str, Path] = field(default_factory=dict)
    rank: int = 0

    def options(self, listening: Listening, number: int = 0) -> list[tuple[str, ...]]:
        """The options of `vllm serve`, each with its values.

        Raises:
            UserError: vLLM has no room for adapters of this rank.
        """
        structured = {"backend": "guidance", "disable_any_whitespace": True}
        return [
            ("--served-model-name", self.name), *self._lora(),
            ("--host", listening.host), ("--port", str(listening.port + number)), ("--dtype", self.dtype),
            ("--enable-prefix-caching",), ("--enable-prompt-tokens-details",), ("--generation-config", "vllm"),
            ("--structured-outputs-config", json.dumps(structured)),
        ]  # fmt: skip

    def _lora(self) -> list[tuple[str, ...]]:
        if not self.modules:
            return []
        room = next((rank for rank in RANKS if rank >= self.rank), None)
        if room is None:
            raise UserError(
                f"adapters of rank {self.rank}: vLLM takes up to {RANKS[-1]}; use --as merged, a server each"
            )
        modules = [f"{name}={folder}" for name, folder in self.modules.items()]
        return [
            ("--enable-lora",), ("--max-loras", str(len(modules))), ("--max-lora-rank", str(room)),
            ("--lora-modules", *modules),
        ]  # fmt: skip


@dataclass(frozen=True)
class VllmPlan:
    """The servers of a run.

    Attributes:
        run: The run directory.
        servers: To start.
        speakers: Who is asked, as in an engine file: the server's number and the name there.
        exported: Where its roles are to be exported to first; None needs no export.
    """

    run: Path
    servers: tuple[VllmServer, ...]
    speakers: Mapping[str, tuple[int, str]]
    exported: Path | None = None

    def engine_file(self, listening: Listening) -> dict[str, Any]:
        """The contents of the engine file that asks these servers."""
        key = {} if listening.api_key_env is None else {"api_key_env": listening.api_key_env}
        common = {**key, "concurrency": _CONCURRENCY, "structured_outputs": "vllm-grammar"}
        ends = {
            speaker: {"base_url": listening.base_url(number), "model": name, **common}
            for speaker, (number, name) in self.speakers.items()
        }
        return {"run": str(self.run), **ends}

    def script(self, listening: Listening) -> str:
        """All of it as shell commands: the export, the engine file, the servers."""
        parts = []
        if self.exported is not None:
            export = ["umi", "export", str(self.run), "--as", "peft", "--variant", "lora", "--out", str(self.exported)]
            parts.append(f"# the roles as LoRA modules, once\n{shlex.join(export)}")
        file = f"{self.run.resolve().name}-vllm.yaml"
        content = yaml.safe_dump(self.engine_file(listening), sort_keys=False)
        parts.append(f"# for --engine {file}\ncat > {shlex.quote(file)} <<'YAML'\n{content}YAML")
        several = len(self.servers) > 1
        head = "# whole models, so a server each, side by side" if several else "# the server"
        key = "" if listening.api_key_env is None else f'VLLM_API_KEY="${listening.api_key_env}" '
        commands = [key + _command(server, listening, number) for number, server in enumerate(self.servers)]
        return "\n\n".join([*parts, f"{head}\n" + (" &\n".join(commands))]) + "\n"


def vllm_plan(directory: Path, variant: str | None = None) -> VllmPlan:
    """How a run is served.

    Args:
        directory: A finished run; its LoRA adapters are to be exported to ``DIRECTORY-peft`` beside it.
        variant: ``full`` or ``lora``, of a run that has several; None prefers ``lora``.

    Raises:
        RunDirectoryError: It isn't a run, isn't finished, or has no such variant.
        UserError: vLLM can't serve the variant.
    """
    info = read_info(directory)
    if info is None:
        raise RunDirectoryError(f"{directory} has no run.json: not a run directory")
    if info.system in ("umi", "multi-one-stage"):
        return _role_plan(directory, _variant(directory, info, variant))
    if variant is not None:
        raise RunDirectoryError(f"{directory} is a run of one model ({info.system}): it has no variant {variant!r}")
    model = _present(directory / BACKBONE)
    server = VllmServer(model, "agent" if info.renderer.voices == "single" else "roles", _dtype(model))
    speakers = ("agent",) if info.renderer.voices == "single" else ROLES
    return VllmPlan(directory, (server,), {speaker: (0, server.name) for speaker in speakers})


def _role_plan(directory: Path, variant: str) -> VllmPlan:
    folders = {role: _present(role_folder(directory, variant, role)) for role in ROLES}
    if variant == "full":
        servers = tuple(VllmServer(folder, role, _dtype(folder)) for role, folder in folders.items())
        return VllmPlan(directory, servers, {role: (number, role) for number, role in enumerate(ROLES)})
    ranks = [int(_json(folder / "adapter_config.json").get("r", 0)) for folder in folders.values()]
    exported = directory.with_name(f"{directory.resolve().name}-peft")
    server = VllmServer(
        exported / BACKBONE, BACKBONE, _dtype(_present(directory / BACKBONE)),
        {role: exported / role for role in ROLES}, max(ranks),
    )  # fmt: skip
    return VllmPlan(directory, (server,), {role: (0, role) for role in ROLES}, exported)


def _variant(directory: Path, info: RunInfo, wanted: str | None) -> str:
    known: list[str] = (info.recipe.get("local_stage") or {}).get("variants", ["full"])
    if wanted is not None and wanted not in known:
        raise RunDirectoryError(f"{directory} has no variant {wanted!r}; it has {', '.join(known)}")
    variant = wanted or ("lora" if "lora" in known else known[0])
    if variant == "alora":
        raise UserError(
            f"{directory}: vLLM refuses its variant alora, adapters that are off before their role's header; train the "
            "variant lora from the same global stage (stage_1, local_stage.variants=[lora]), or serve it with "
            "`umi serve --model`"
        )
    return variant


def _present(folder: Path) -> Path:
    if not folder.is_dir():
        raise RunDirectoryError(f"{folder} is missing: the run isn't finished; run the same `umi train` again to go on")
    return folder


def _dtype(model: Path) -> str:
    """What the weights are kept in."""
    config = _json(model / "config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "auto")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} can't be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _command(server: VllmServer, listening: Listening, number: int) -> str:
    """`vllm serve`, an option a line."""
    options = [shlex.join(option) for option in server.options(listening, number)]
    return " \\\n  ".join([shlex.join(["vllm", "serve", str(server.model)]), *options])
