"""Exported roles: other programs load them and compute what the run computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.engines.load import open_engine
from alpha_umi.engines.local import LocalEngine
from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.export import export_run
from alpha_umi.run_directory import load_model, load_run
from alpha_umi.transcript import ROLES, Role
from tests.training.test_glpft import Finished
from tests.training.test_variants import digests, local

VARIANTS = local("lora", "alora", "full")


@pytest.mark.parametrize("variant", ["lora", "alora"])
def test_peft_loads_every_exported_adapter_with_its_backbone(finished: Finished, tmp_path: Path, variant: str):
    folder = finished(local_stage=VARIANTS)
    out = tmp_path / "out"
    assert export_run(folder, "peft", out, variant) == [out / role for role in ROLES]
    run = load_run(folder, variant)
    assert run.adapters is not None
    for role in ROLES:
        header = run.renderer.markers.headers[role]
        ids = torch.tensor([[9, 10, 11, *header, 12, 13]])
        peft = AutoPeftModelForCausalLM.from_pretrained(out / role)
        route: dict[Role, torch.Tensor] = {role: torch.arange(3 if variant == "alora" else 0, ids.shape[1])}
        with torch.no_grad(), run.adapters.routed(route):
            ours = run.models[role](ids, use_cache=False).logits
        with torch.no_grad():
            torch.testing.assert_close(peft(input_ids=ids, use_cache=False).logits, ours)


@pytest.mark.parametrize("variant", ["lora", "full"])
def test_merged_models_compute_what_the_roles_do(finished: Finished, tmp_path: Path, variant: str):
    folder = finished(local_stage=VARIANTS)
    export_run(folder, "merged", tmp_path / "out", variant)
    run = load_run(folder, variant)
    ids = torch.tensor([[9, 10, 11, 12, 13]])
    for role in ROLES:
        merged = load_model(str(tmp_path / "out" / role))
        with torch.no_grad():
            if run.adapters is None:
                ours = run.models[role](ids).logits
            else:
                with run.adapters.routed(role):
                    ours = run.models[role](ids).logits
            torch.testing.assert_close(merged(ids).logits, ours, rtol=1e-4, atol=1e-5)
        assert len(AutoTokenizer.from_pretrained(tmp_path / "out" / role)) == len(run.renderer.tokenizer)


def test_an_activated_adapter_is_not_merged_and_a_full_model_is_no_adapter(finished: Finished, tmp_path: Path):
    folder = finished(local_stage=VARIANTS)
    with pytest.raises(UserError, match="alora can't be merged"):
        export_run(folder, "merged", tmp_path / "out", "alora")
    with pytest.raises(UserError, match="--as merged"):
        export_run(folder, "peft", tmp_path / "out", "full")
    with pytest.raises(UserError, match="peft and merged"):
        export_run(folder, "onnx", tmp_path / "out")
    with pytest.raises(RunDirectoryError, match="no variant 'qlora'"):
        export_run(folder, "peft", tmp_path / "out", "qlora")
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_not_written_over(finished: Finished, tmp_path: Path):
    folder = finished(local_stage=VARIANTS)
    before = digests(folder)
    with pytest.raises(UserError, match="new or an empty folder"):
        export_run(folder, "peft", folder)
    assert digests(folder) == before
    (tmp_path / "empty").mkdir()
    assert export_run(folder, "peft", tmp_path / "empty")[0].is_dir()


def test_a_run_of_one_model_has_no_roles_to_export(finished: Finished, tmp_path: Path):
    folder = finished("single-multitask", local_stage=None)
    with pytest.raises(RunDirectoryError, match="one model"):
        export_run(folder, "merged", tmp_path / "out")


def test_the_command_line_takes_form_and_variant_and_names_what_it_wrote(finished: Finished, tmp_path: Path):
    folder = finished(local_stage=VARIANTS)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(folder), "--as", "peft", "--variant", "alora", "--out", str(out)])
    assert done.exit_code == 0
    assert all(f"{out.name}/{role}" in done.output.replace("\n", "") for role in ROLES)


def test_an_engine_runs_the_variant_that_is_asked_for(finished: Finished):
    folder = finished(local_stage=VARIANTS)
    for variant, models in (("lora", 1), ("alora", 1), ("full", 3)):
        with open_engine(folder, variant=variant) as engine:
            assert isinstance(engine, LocalEngine)
            assert len({id(runner.model) for runner in engine._runners.values()}) == models
    with pytest.raises(RunDirectoryError, match="no variant 'qlora'"), open_engine(folder, variant="qlora"):
        pass
