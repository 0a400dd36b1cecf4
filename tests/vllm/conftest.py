"""A real vLLM server with a run's LoRA modules.

Needs the Python of an environment with vLLM in ``ALPHA_UMI_VLLM`` (`make test-vllm` makes one); without it everything
here is skipped. ``ALPHA_UMI_LORA_RUN`` may name a finished run with the variant ``lora`` in place of the small one that
is trained here.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
import torch

from alpha_umi.engines.openai_vllm import Listening, VllmPlan, VllmServer, vllm_plan
from alpha_umi.export import export_run
from alpha_umi.training.glpft import train
from alpha_umi.training.recipe import GlpftRecipe, parse_recipe

_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
_READY = "Application startup complete"
_START_SECONDS = 900


@pytest.fixture(scope="session")
def python() -> str:
    """Of the environment with vLLM."""
    given = os.environ.get("ALPHA_UMI_VLLM")
    if not given:
        pytest.skip("a real vLLM is needed: `make test-vllm`, or the Python of its environment in ALPHA_UMI_VLLM")
    return given


@pytest.fixture(scope="session")
def run(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shipped backbone with LoRA adapters, with a folder to export beside it."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("vllm") / "run"
    given = os.environ.get("ALPHA_UMI_LORA_RUN")
    if given:
        shutil.copytree(given, out)
        return out
    recipe = parse_recipe({
        "task": "glpft", "system": "umi", "out": str(out), "batch_tokens": 1536, "threads": 1,
        "data": {"source": "toolworld", "reword": 0.7}, "global_stage": {"steps": 12},
        "local_stage": {"steps": 8, "variants": ["lora"]},
    })  # fmt: skip
    assert isinstance(recipe, GlpftRecipe)
    train(recipe)
    return out


@pytest.fixture(scope="session")
def listening() -> Listening:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Listening(port=listener.getsockname()[1])


@pytest.fixture(scope="session")
def plan(run: Path, python: str, listening: Listening) -> Iterator[VllmPlan]:
    """What is served, while it is."""
    made = vllm_plan(run)
    assert made.exported is not None
    export_run(run, "peft", made.exported, "lora")
    with _serving(python, made.servers[0], listening):
        yield made


@contextmanager
def _serving(python: str, server: VllmServer, listening: Listening) -> Iterator[None]:
    """Runs a server with the options that `umi serve --print-command` says; uncompiled, which starts sooner."""
    # the command `vllm` of some builds doesn't start; it is this module
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(server.model), "--enforce-eager"]
    command += chain.from_iterable(server.options(listening))
    process = subprocess.Popen(
        command, env=os.environ | _OFFLINE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    settled = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if _READY in line:
                settled.set()
        settled.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        assert settled.wait(_START_SECONDS) and process.poll() is None, "".join(said[-60:])
        yield
    finally:
        process.terminate()
        process.wait(60)
        listener.join()
