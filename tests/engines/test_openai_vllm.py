"""The commands that serve a run with vLLM, and the engine file that goes with them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.engines.openai_config import OpenAIRun
from alpha_umi.engines.openai_vllm import RANKS, Listening, vllm_plan
from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.run_directory import BACKBONE, RendererInfo, RunInfo, role_folder
from alpha_umi.transcript import ROLES, Voices


def make_run(folder: Path, *variants: str, system: str = "umi", voices: Voices = "roles", rank: int = 32) -> Path:
    """A run directory with all but weights and tokenizer."""
    renderer = RendererInfo(voices=voices, observation_tokens=256, fingerprint="")
    recipe: dict[str, Any] = {"local_stage": {"variants": list(variants)} if variants else None}
    folder.mkdir(parents=True, exist_ok=True)
    RunInfo(system=system, recipe=recipe, renderer=renderer, data="", max_length=512, precision="fp32").save(folder)
    kinds = [(folder / BACKBONE, "config.json", {"dtype": "float32"})]
    for variant in variants:
        name, content = ("config.json", {"dtype": "bfloat16"}) if variant == "full" else _adapter(rank)
        kinds += [(role_folder(folder, variant, role), name, content) for role in ROLES]
    for place, name, content in kinds:
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _adapter(rank: int) -> tuple[str, dict[str, Any]]:
    return "adapter_config.json", {"r": rank}


def options(run: Path, listening: Listening | None = None, variant: str | None = None) -> list[dict[str, list[str]]]:
    """Of each server."""
    listening = listening or Listening()
    return [
        {name: values for name, *values in server.options(listening, number)}
        for number, server in enumerate(vllm_plan(run, variant).servers)
    ]


def test_a_run_of_adapters_is_one_backbone_with_a_module_a_role(tmp_path: Path):
    run = make_run(tmp_path / "mine", "full", "lora", rank=20)
    (server,) = vllm_plan(run).servers
    assert server.model == tmp_path / "mine-peft" / BACKBONE
    (given,) = options(run)
    assert given["--lora-modules"] == [f"{role}={tmp_path / 'mine-peft' / role}" for role in ROLES]
    assert (given["--max-loras"], given["--max-lora-rank"], given["--dtype"]) == (["3"], ["32"], ["float32"])
    assert (given["--host"], given["--port"], given["--generation-config"]) == (["127.0.0.1"], ["8000"], ["vllm"])
    assert {"--enable-lora", "--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(given)
    assert json.loads(given["--structured-outputs-config"][0])["backend"] == "guidance"


def test_the_script_exports_first_and_its_engine_file_can_be_read(tmp_path: Path):
    run = make_run(tmp_path / "it's mine", "lora")
    script = vllm_plan(run).script(Listening(port=9000))
    lines = [line for line in script.splitlines() if line.startswith("umi export")]
    assert shlex.split(lines[0])[2:] == [
        str(run), "--as", "peft", "--variant", "lora", "--out", str(tmp_path / "it's mine-peft"),
    ]  # fmt: skip
    source = OpenAIRun.model_validate(yaml.safe_load(script.partition("<<'YAML'\n")[2].partition("\nYAML\n")[0]))
    assert source.run == run and list(source.endpoints) == list(ROLES)
    for role, endpoint in source.endpoints.items():
        assert (endpoint.model, endpoint.base_url) == (role, "http://127.0.0.1:9000/v1")
        assert endpoint.structured_outputs == "vllm-grammar" and source.api(endpoint) == "completions"
    command = shlex.split(script.partition("# the server\n")[2])
    assert command[:3] == ["vllm", "serve", str(tmp_path / "it's mine-peft" / BACKBONE)]


def test_a_run_of_whole_models_is_a_server_a_role(tmp_path: Path):
    run = make_run(tmp_path / "mine", "full")
    given = options(run)
    assert [one["--port"] for one in given] == [["8000"], ["8001"], ["8002"]]
    assert all("--enable-lora" not in one and one["--dtype"] == ["bfloat16"] for one in given)
    plan = vllm_plan(run)
    assert [server.model for server in plan.servers] == [run / role for role in ROLES]
    assert "umi export" not in plan.script(Listening())
    urls = [plan.engine_file(Listening())[role]["base_url"] for role in ROLES]
    assert urls == [f"http://127.0.0.1:{port}/v1" for port in (8000, 8001, 8002)]


@pytest.mark.parametrize(("voices", "speakers"), [("single", ["agent"]), ("roles", list(ROLES))])
def test_a_run_of_one_model_is_one_server_for_all_its_voices(tmp_path: Path, voices: Voices, speakers: list[str]):
    run = make_run(tmp_path / "mine", system="single", voices=voices)
    plan = vllm_plan(run)
    assert [server.model for server in plan.servers] == [run / BACKBONE]
    file = plan.engine_file(Listening())
    assert list(file) == ["run", *speakers]
    OpenAIRun.model_validate(file)
    with pytest.raises(RunDirectoryError, match="one model"):
        vllm_plan(run, "lora")


def test_activated_adapters_are_refused_with_the_way_out(tmp_path: Path):
    with pytest.raises(UserError, match=r"vLLM refuses its variant alora.*local_stage.variants=\[lora\]"):
        vllm_plan(make_run(tmp_path / "one", "alora"))
    both = make_run(tmp_path / "both", "alora", "lora")
    assert vllm_plan(both).exported is not None
    with pytest.raises(UserError, match="vLLM refuses"):
        vllm_plan(both, "alora")
    with pytest.raises(RunDirectoryError, match="no variant 'full'; it has alora, lora"):
        vllm_plan(both, "full")


def test_what_is_no_finished_run_is_refused(tmp_path: Path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        vllm_plan(tmp_path)
    run = make_run(tmp_path / "mine", "lora")
    (run / "lora" / "caller" / "adapter_config.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"adapter_config.json can't be read"):
        vllm_plan(run)
    (run / "lora" / "caller").rmdir()
    with pytest.raises(RunDirectoryError, match="isn't finished"):
        vllm_plan(run)


def test_ranks_are_rounded_up_to_what_vllm_takes(tmp_path: Path):
    (given,) = options(make_run(tmp_path / "mine", "lora", rank=33))
    assert given["--max-lora-rank"] == ["64"]
    with pytest.raises(UserError, match="rank 513: vLLM takes up to 512"):
        options(make_run(tmp_path / "mine", "lora", rank=RANKS[-1] + 1))


def test_a_key_is_named_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "secret-1")
    run = make_run(tmp_path / "mine", "lora")
    for host, reached in (("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")):
        script = vllm_plan(run).script(Listening(host, 8000, "MY_KEY"))
        assert 'VLLM_API_KEY="$MY_KEY" vllm serve' in script and "secret-1" not in script
        assert f"base_url: http://{reached}:8000/v1" in script and "api_key_env: MY_KEY" in script


def test_the_command_line_prints_it_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "mine", "lora")

    def serve(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["serve", *arguments])

    done = serve("--engine", "vllm", "--print-command", "--model", "mine", "--port", "9000")
    assert done.exit_code == 0 and "vllm serve mine-peft/backbone" in done.output and "--port 9000" in done.output
    for wrong, said in (
        (["--engine", "vllm", "--model", "mine"], "add --print-command"),
        (["--print-command", "--model", "mine"], "--engine vllm and --model RUN"),
        (["--engine", "vllm", "--print-command"], "--engine vllm and --model RUN"),
        (["--engine", "vllm", "--print-command", "--model", "mine", "--host", "0.0.0.0"], "--api-key-env"),
    ):
        done = serve(*wrong)
        assert isinstance(done.exception, UserError) and said in str(done.exception)
