"""Whole runs from tiny random backbones: every system, going on, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alpha_umi.errors import RecipeError, RunDirectoryError, UserError
from alpha_umi.run_directory import load_run, read_info
from alpha_umi.training.glpft import train
from alpha_umi.training.job import Progress
from alpha_umi.training.recipe import GlpftRecipe
from alpha_umi.trajectory import Trajectory, write_jsonl
from alpha_umi.transcript import ROLES
from tests.tokenizers import chatml, without_markers

Tiny = Callable[..., GlpftRecipe]
Finished = Callable[..., Path]


class Killed(Exception):
    """Stands for whatever ends a process."""


def kill_at(name: str, step: int) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if (progress.name, progress.report.step) == (name, step):
            raise Killed

    return on_step


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def equal(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def last_losses(run: Path) -> dict[tuple[str, str | None, int], dict[str, float]]:
    """Losses a stage, role and step; where a step was done again, the later line counts."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {(line["stage"], line["role"], line["step"]): line["loss"] for line in lines}


# ---- the systems


@pytest.mark.parametrize("system", ["umi", "single", "single-multitask", "multi-one-stage"])
def test_every_system_trains_and_loads(finished: Finished, system: str):
    folder = finished(system)
    info = read_info(folder)
    assert info is not None
    local = [f"local/{role}" for role in ROLES]
    stages = {"umi": ["global", *local], "multi-one-stage": local}.get(system, ["global"])
    steps = ["/".join(filter(None, (stage, role))) for stage, role, _ in last_losses(folder)]
    assert steps == [name for name in stages for _ in range(3 if name == "global" else 2)]
    assert info.done == list(info.costs) == list(info.losses) == stages
    run = load_run(folder)
    assert set(run.models) == ({"assistant"} if system == "single" else set(ROLES))
    assert len({id(model) for model in run.models.values()}) == (3 if local[0] in stages else 1)
    assert run.info == info
    assert system in (folder / "README.md").read_text(encoding="utf-8")


def test_the_three_roles_differ_from_the_backbone_and_from_each_other(finished: Finished):
    folders = [finished() / name for name in ("backbone", *ROLES)]
    assert not any(equal(a, b) for n, a in enumerate(folders) for b in folders[n + 1 :])


def test_each_role_starts_from_the_global_stage_and_learns_its_own_words(tiny: Tiny, tmp_path: Path):
    train(tiny(local_stage={"steps": 1, "optimization": {"learning_rate": 1e-12, "weight_decay": 0}}))
    backbone = weights(tmp_path / "run" / "backbone")
    for role in ROLES:
        for name, tensor in weights(tmp_path / "run" / role).items():
            torch.testing.assert_close(tensor, backbone[name], rtol=0, atol=1e-9)
    voices: dict[tuple[str, str | None], set[str]] = {}
    for (stage, role, _), loss in last_losses(tmp_path / "run").items():
        voices.setdefault((stage, role), set()).update(loss)
    assert voices == {("global", None): set(ROLES)} | {("local", role): {role} for role in ROLES}


def test_without_a_global_stage_the_roles_start_from_the_backbone_itself(tiny: Tiny, tmp_path: Path):
    train(tiny("multi-one-stage", local_stage={"steps": 1, "optimization": {"learning_rate": 1e-12}}))
    for name, tensor in weights(tmp_path / "run" / "planner").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "run" / "backbone")[name], rtol=0, atol=1e-9)


def test_the_run_says_what_it_cost(finished: Finished):
    info = read_info(finished())
    assert info is not None
    lines = [json.loads(text) for text in (finished() / "metrics.jsonl").read_text().splitlines()]
    for name, cost in info.costs.items():
        mine = [line for line in lines if name == "/".join(filter(None, (line["stage"], line["role"])))]
        assert cost["tokens_forwarded"] == sum(line["tokens"] for line in mine)
        assert cost["loss_tokens"] == sum(line["loss_tokens"] for line in mine)
        assert cost["flops"] > 6 * cost["tokens_forwarded"]
        assert cost["trajectories"] > 0
    assert info.budget == {"global": 3, "local": 2}


def test_two_runs_of_one_recipe_are_the_same(tiny: Tiny, tmp_path: Path):
    for name in ("a", "b"):
        train(tiny(out=str(tmp_path / name), rationale_dropout=0.2))
    assert all(equal(tmp_path / "a" / part, tmp_path / "b" / part) for part in ("backbone", *ROLES))
    assert last_losses(tmp_path / "a") == last_losses(tmp_path / "b")


def test_a_run_directory_holds_no_pickle(finished: Finished):
    files = {path.relative_to(finished()) for path in finished().rglob("*") if path.is_file()}
    kinds = {path.suffix for path in files}
    assert not kinds & {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}, sorted(files)
    assert {path.parent.name for path in files if path.name == "model.safetensors"} == {"backbone", *ROLES}
    assert not any("checkpoint" in str(path) or "partial" in str(path) for path in files), sorted(files)


# ---- one global stage for several runs


def test_the_global_stage_of_another_run_can_be_used(tiny: Tiny, tmp_path: Path, finished: Finished):
    info = train(tiny(global_stage=None, stage_1=str(finished())))
    assert info.done == [f"local/{role}" for role in ROLES]
    assert all(equal(finished() / part, tmp_path / "run" / part) for part in ("backbone", *ROLES))
    load_run(tmp_path / "run")


def test_a_run_without_a_global_stage_gives_none(tiny: Tiny, finished: Finished):
    with pytest.raises(RunDirectoryError, match="run has no finished global stage"):
        train(tiny(global_stage=None, stage_1=str(finished("multi-one-stage"))))


def test_a_global_stage_of_another_renderer_is_refused(tiny: Tiny, finished: Finished):
    with pytest.raises(RunDirectoryError, match="run was trained with another renderer"):
        train(tiny(global_stage=None, stage_1=str(finished("single-multitask")), observation_tokens=128))


# ---- the same directory again


def test_a_finished_run_is_not_trained_again(tiny: Tiny, tmp_path: Path, finished: Finished):
    shutil.copytree(finished(), tmp_path / "run")
    first = read_info(tmp_path / "run")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "run").rglob("*")}
    again = train(tiny(), kill_at("global", 1))
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "run").rglob("*")}
    assert again == first
    changed = {path.name for path in before | after if before.get(path) != after.get(path)}
    assert changed <= {"README.md", "run"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_tokens": 1024, "max_length": 256}, "batch_tokens, max_length"),
        ({"global_stage": {"steps": 4}}, "global_stage"),
        ({"backbone": {"hidden": 64}}, "backbone"),
    ],
)
def test_another_recipe_in_the_same_directory_is_refused(
    tiny: Tiny, tmp_path: Path, finished: Finished, changes: dict[str, Any], named: str
):
    shutil.copytree(finished(), tmp_path / "run")
    with pytest.raises(RecipeError, match=rf"run of another recipe \(different: {named}\): choose another 'out'"):
        train(tiny(**changes))


def test_a_run_from_before_a_key_came_goes_on(tiny: Tiny, tmp_path: Path, finished: Finished):
    shutil.copytree(finished(), tmp_path / "run")
    edit(tmp_path / "run", lambda content: content["recipe"]["global_stage"].pop("first"))
    assert len(train(tiny()).done) == 4


def test_stages_may_see_the_same_number_of_trajectories(tiny: Tiny):
    info = train(tiny(global_stage={"trajectories": 6}, local_stage={"trajectories": 6, "first": 6}))
    seen = {name: cost["trajectories"] for name, cost in info.costs.items()}
    assert len(seen) == 4 and all(0 < count <= 24 for count in seen.values())
    assert {"global", "local/planner", "local/caller", "local/summarizer"} == set(info.budget)


def test_a_run_can_be_moved_and_go_on(tiny: Tiny, tmp_path: Path):
    with pytest.raises(Killed):
        train(tiny(), kill_at("local/planner", 1))
    (tmp_path / "run").rename(tmp_path / "moved")
    info = train(tiny(out=str(tmp_path / "moved"), checkpoint_seconds=7))
    assert len(info.done) == 4


def test_other_data_under_the_same_name_is_refused(
    tiny: Tiny, data: Path, trajectories: list[Trajectory], tmp_path: Path
):
    mine = tmp_path / "mine.jsonl"
    shutil.copy(data, mine)
    with pytest.raises(Killed):
        train(tiny(data={"source": str(mine)}), kill_at("global", 1))
    write_jsonl(mine, trajectories[1:])
    with pytest.raises(RunDirectoryError, match="trained on other data"):
        train(tiny(data={"source": str(mine)}))


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    change(content)
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_run_of_another_renderer_is_neither_used_nor_gone_on_with(tiny: Tiny, tmp_path: Path, finished: Finished):
    shutil.copytree(finished("single-multitask"), tmp_path / "run")
    edit(tmp_path / "run", lambda content: content["renderer"].update(fingerprint="0123456789abcdef"))
    with pytest.raises(RunDirectoryError, match=r"another renderer or tokenizer .0123456789abcdef"):
        load_run(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match=r"another renderer or tokenizer .0123456789abcdef"):
        train(tiny("single-multitask"))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', ""])
def test_a_damaged_run_json_is_named(tiny: Tiny, tmp_path: Path, text: str):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text, encoding="utf-8")
    for use in (lambda: load_run(tmp_path / "run"), lambda: train(tiny())):
        with pytest.raises(RunDirectoryError, match=r"run\.json can't be read"):
            use()


def test_what_is_no_finished_run_is_not_loaded(tiny: Tiny, tmp_path: Path):
    with pytest.raises(RunDirectoryError, match="nowhere: no such run directory"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        load_run(tmp_path)
    with pytest.raises(Killed):
        train(tiny(), kill_at("local/caller", 1))
    with pytest.raises(RunDirectoryError, match=r"isn't finished \(caller, summarizer missing\)"):
        load_run(tmp_path / "run")


def test_a_damaged_model_is_named(tmp_path: Path, finished: Finished):
    shutil.copytree(finished("single-multitask"), tmp_path / "run")
    file = tmp_path / "run" / "backbone" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"no model can be loaded from '.*backbone'"):
        load_run(tmp_path / "run")


# ---- interruptions


def test_a_run_that_is_interrupted_again_and_again_ends_as_if_it_had_not_been(
    tiny: Tiny, tmp_path: Path, finished: Finished
):
    """In the first, a middle and the last step of the global stage, and in the first and the last local one."""
    uninterrupted, recipe = finished(**LONGER), tiny(**LONGER, checkpoint_seconds=1e-9)
    for name, step in (
        ("global", 1), ("global", 3), ("global", 4), ("local/planner", 2), ("local/summarizer", 3),
    ):  # fmt: skip
        with pytest.raises(Killed):
            train(recipe, kill_at(name, step))
    info = train(recipe)
    assert last_losses(tmp_path / "run") == last_losses(uninterrupted)
    assert all(equal(tmp_path / "run" / part, uninterrupted / part) for part in ("backbone", *ROLES))
    whole = read_info(uninterrupted)
    assert whole is not None
    assert info.losses == whole.losses
    for stage, cost in whole.costs.items():
        assert {**info.costs[stage], "seconds": 0} == {**cost, "seconds": 0}


LONGER = {"global_stage": {"steps": 4}, "local_stage": {"steps": 3}, "data": {"source": "toolworld", "easy": 0.9}}


def test_a_log_line_that_was_cut_off_goes(tiny: Tiny, tmp_path: Path):
    with pytest.raises(Killed):
        train(tiny(), kill_at("global", 2))
    with open(tmp_path / "run" / "metrics.jsonl", "a", encoding="utf-8") as log:
        log.write('{"system": "umi", "st')
    train(tiny())
    assert len(last_losses(tmp_path / "run")) == 3 + 3 * 2


def test_what_a_kill_left_behind_goes(tiny: Tiny, tmp_path: Path, finished: Finished):
    shutil.copytree(finished(), tmp_path / "run")
    left = tmp_path / "run" / "checkpoints" / "local-caller" / "checkpoint-0000001"
    left.mkdir(parents=True)
    train(tiny())
    assert not left.exists()


def test_minutes_become_steps_once(tiny: Tiny, tmp_path: Path):
    recipe = tiny(
        global_stage={"minutes": 0.01}, local_stage={"minutes": 0.005}, data={"source": "toolworld", "easy": 1.0},
        checkpoint_seconds=1e9,
    )  # fmt: skip
    with pytest.raises(Killed):
        train(recipe, kill_at("global", 1))
    info = read_info(tmp_path / "run")
    assert info is not None
    assert info.budget["global"] >= 1
    before = last_losses(tmp_path / "run")
    edit(tmp_path / "run", lambda content: content["budget"].update({"global": 5, "local": 3}))
    info = train(recipe)
    assert info.budget == {"global": 5, "local": 3}, "a stored budget is kept"
    after = last_losses(tmp_path / "run")
    assert sum(stage == "global" for stage, _, _ in after) >= 5
    assert before[("global", None, 1)] == after[("global", None, 1)], "the trial changes nothing about the first step"


def test_more_minutes_are_more_steps(tiny: Tiny, tmp_path: Path):
    budgets: list[int] = []
    for number, minutes in enumerate((0.02, 0.4)):
        recipe = tiny("single-multitask", out=str(tmp_path / str(number)), global_stage={"minutes": minutes})
        with pytest.raises(Killed):
            train(recipe, kill_at("global", 1))
        info = read_info(tmp_path / str(number))
        assert info is not None
        budgets.append(info.budget["global"])
    assert budgets[1] > 3 * budgets[0]


# ---- disk


def test_a_full_disk_is_seen_before_training(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match=r"run: .* GB are needed .* 0\.0 GB are free; free some space"):
        train(tiny(), kill_at("global", 1))


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"can't write .*metrics\.jsonl: No space left on device"):
        train(tiny())


def test_weights_that_do_not_fit_are_a_sentence_too(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(UserError, match=r"can't write .*backbone: No space left on device"):
        train(tiny())
    monkeypatch.undo()
    assert train(tiny()).done[0] == "global"


# ---- other backbones


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def qwen3(tmp_path: Path) -> str:
    """A tiny Qwen3 with random weights, untied head and more rows in its embedding than tokens, and its tokenizer."""
    tokenizer = chatml()
    torch.manual_seed(1)
    config = Qwen3Config(vocab_size=len(tokenizer) + 37, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=2048,
        tie_word_embeddings=False)  # fmt: skip
    return save(Qwen3ForCausalLM(config), tokenizer, tmp_path / "qwen3")


@pytest.mark.parametrize("system", ["umi", "single"])
def test_a_qwen3_checkpoint_takes_the_same_path(tiny: Tiny, tmp_path: Path, qwen3: str, system: str):
    train(tiny(system, backbone=qwen3, max_length=2048, batch_tokens=2048))
    run = load_run(tmp_path / "run")
    assert run.renderer.markers.style == "chatml"
    assert run.context == 2048
    for model in run.models.values():
        assert type(model).__name__ == "Qwen3ForCausalLM"
    start = weights(Path(qwen3))
    changed = [
        name for name, tensor in weights(tmp_path / "run" / "backbone").items() if not torch.equal(tensor, start[name])
    ]
    assert len(changed) == len(start)


def test_a_qwen3_run_goes_on_to_the_same_weights(tiny: Tiny, tmp_path: Path, qwen3: str):
    recipe = {"backbone": qwen3, "max_length": 2048, "batch_tokens": 2048}
    train(tiny("single-multitask", out=str(tmp_path / "whole"), **recipe))
    again = tiny("single-multitask", checkpoint_seconds=1e-9, **recipe)
    with pytest.raises(Killed):
        train(again, kill_at("global", 2))
    train(again)
    assert equal(tmp_path / "run" / "backbone", tmp_path / "whole" / "backbone")


@pytest.fixture
def unmarked(tmp_path: Path) -> str:
    """A GPT-2 whose tokenizer has no chat format."""
    tokenizer = without_markers()
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=1024, bos_token_id=0, eos_token_id=0
    )
    return save(GPT2LMHeadModel(config), tokenizer, tmp_path / "gpt2")


def test_a_tokenizer_without_chat_markers_is_given_some(tiny: Tiny, tmp_path: Path, unmarked: str):
    vocabulary = AutoConfig.from_pretrained(unmarked).vocab_size
    train(tiny(backbone=unmarked, max_length=1024, batch_tokens=1024))
    run = load_run(tmp_path / "run")
    assert run.renderer.markers.style == "nano"
    assert len(run.renderer.tokenizer) == vocabulary + 8
    assert {model.get_input_embeddings().weight.shape[0] for model in run.models.values()} == {vocabulary + 8}


def test_new_embeddings_are_the_same_in_every_run(tiny: Tiny, tmp_path: Path, unmarked: str):
    """A run that is killed before its first checkpoint starts again from the same weights."""
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        recipe = tiny(
            "single-multitask", out=str(tmp_path / name), backbone=unmarked, max_length=1024, batch_tokens=1024
        )
        train(recipe)
    assert last_losses(tmp_path / "a") == last_losses(tmp_path / "b")


def test_a_backbone_that_is_not_there_is_named(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no model can be loaded from '.*empty'"):
        train(tiny(backbone=str(tmp_path / "empty")))


def test_weights_in_a_pickle_are_not_loaded(tiny: Tiny, tmp_path: Path, qwen3: str):
    Path(qwen3, "model.safetensors").unlink()
    torch.save({}, Path(qwen3, "pytorch_model.bin"))
    with pytest.raises(UserError, match="give a directory with safetensors"):
        train(tiny("single-multitask", backbone=qwen3))


def test_infos_say_which_versions_made_the_run(finished: Finished):
    info = read_info(finished("single"))
    assert info is not None
    assert (
        info.versions["torch"] == torch.__version__
        or info.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    )
