"""The local stage with adapters: what it leaves on disk, that PEFT reads it, and what is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from alpha_umi.errors import RecipeError, RunDirectoryError, UserError
from alpha_umi.run_directory import load_model, load_run
from alpha_umi.training.glpft import train
from alpha_umi.training.job import Progress
from alpha_umi.transcript import ROLES, Role
from tests.training.test_glpft import Finished, Killed, Tiny, kill_at, last_losses

ADAPTER = {"rank": 4, "optimization": {"learning_rate": 1e-2}}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def local(*variants: str, **more: object) -> dict[str, object]:
    return {"steps": 2, "variants": list(variants), "adapter": ADAPTER} | more


def test_several_variants_come_from_one_global_stage(tiny: Tiny, tmp_path: Path):
    names: list[str] = []
    info = train(tiny(local_stage=local("lora", "alora", "full")), lambda progress: names.append(progress.name))
    one = [f"local/lora/{role}" for role in ROLES]
    assert list(dict.fromkeys(names)) == ["global", *one, "local/alora", *(f"local/{role}" for role in ROLES)]
    assert set(info.losses["local/alora"]) == set(ROLES)
    for variant in ("lora", "alora", "full"):
        run = load_run(tmp_path / "run", variant)
        assert set(run.models) == set(ROLES)
        assert run.variant == (None if variant == "full" else variant)
        assert (run.adapters is None) == (variant == "full")
    assert load_run(tmp_path / "run").variant == "lora"


@pytest.mark.parametrize("variant", ["lora", "alora"])
def test_peft_itself_loads_an_adapter_and_computes_the_same(finished: Finished, variant: str):
    folder = finished(local_stage=local(variant))
    run = load_run(folder)
    assert run.adapters is not None
    role: Role = "caller"
    header = run.renderer.markers.headers[role]
    ids = torch.tensor([[9, 10, 11, *header, 12, 13]])
    start = 3 if variant == "alora" else 0
    peft = PeftModel.from_pretrained(load_model(str(folder / "backbone")), str(folder / variant / role))
    route = {role: torch.arange(start, ids.shape[1])}
    with torch.no_grad(), run.adapters.routed(route):
        ours = run.models[role](ids, use_cache=False).logits
    with torch.no_grad():
        torch.testing.assert_close(ours, peft(input_ids=ids, use_cache=False).logits)
        bare = run.models[role](ids, use_cache=False).logits
    assert not torch.allclose(ours[:, -1], bare[:, -1])
    assert torch.equal(ours[:, :start], bare[:, :start])


def test_a_single_role_is_trained_again_and_the_others_stay_byte_for_byte(
    tiny: Tiny, tmp_path: Path, finished: Finished
):
    for variant in ("alora", "full"):
        first, second = finished(local_stage=local(variant)), tmp_path / variant
        train(
            tiny(
                out=str(second), stage_1=str(first), global_stage=None, data={"source": "toolworld", "seed": 5},
                local_stage=local(variant, roles=["caller"]),
            )
        )  # fmt: skip
        folder = Path(variant) if variant == "alora" else Path()
        for role in ROLES:
            same = digests(first / folder / role) == digests(second / folder / role)
            assert same == (role != "caller")
        assert load_run(second).variant == (None if variant == "full" else variant)


def test_a_killed_local_stage_goes_on_to_the_same_adapters(tiny: Tiny, tmp_path: Path):
    whole = tiny(out=str(tmp_path / "whole"), local_stage=local("alora", steps=4))
    train(whole)
    part = tiny(out=str(tmp_path / "part"), local_stage=local("alora", steps=4), checkpoint_seconds=1e-9)
    with pytest.raises(Killed):
        train(part, kill_at("local/alora", 3))
    resumed: list[Progress] = []
    train(part, resumed.append)
    assert [p.report.step for p in resumed if p.name == "local/alora"] == [3, 4]
    assert digests(tmp_path / "whole" / "alora") == digests(tmp_path / "part" / "alora")
    assert last_losses(tmp_path / "whole") == last_losses(tmp_path / "part")


def test_an_adapter_of_another_backbone_is_refused(tiny: Tiny, tmp_path: Path, finished: Finished):
    train(tiny(out=str(tmp_path / "b"), seed=1, local_stage=local("alora")))
    theirs = finished(local_stage=local("alora")) / "alora" / "planner"
    shutil.copytree(theirs, tmp_path / "b" / "alora" / "planner", dirs_exist_ok=True)
    with pytest.raises(RunDirectoryError, match=r"planner: the adapter is for another backbone \(\w+, here \w+\)"):
        load_run(tmp_path / "b")


def test_a_variant_that_was_not_trained_is_named(finished: Finished):
    with pytest.raises(RunDirectoryError, match="has no variant 'lora'; it has alora"):
        load_run(finished(local_stage=local("alora")), "lora")


def test_a_layer_that_is_not_there_is_named(tiny: Tiny):
    adapter = ADAPTER | {"targets": ["q_proj", "c_attn"]}
    with pytest.raises(UserError, match=r"adapter.targets: the model has no layer 'c_attn'; it has .*q_proj"):
        train(tiny(local_stage=local("lora", adapter=adapter)))


def test_a_role_left_out_has_to_come_from_somewhere(tiny: Tiny, tmp_path: Path, finished: Finished):
    with pytest.raises(RecipeError, match=r"leaves out a role: give 'stage_1'"):
        tiny(local_stage=local("alora", roles=["caller"]))
    first = finished(local_stage=local("full"))
    with pytest.raises(RunDirectoryError, match="has no alora planner to take"):
        train(
            tiny(
                out=str(tmp_path / "b"), stage_1=str(first), global_stage=None,
                local_stage=local("alora", roles=["caller"]),
            )
        )  # fmt: skip
