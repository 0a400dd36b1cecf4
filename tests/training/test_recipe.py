"""Recipes: what is refused, and that the complaint names what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alpha_umi.errors import RecipeError
from alpha_umi.training.recipe import GlpftRecipe, NanoShape, PretrainRecipe, load_recipe, parse_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def glpft(system: str = "umi", **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"task": "glpft", "system": system, "out": "somewhere", "global_stage": {"steps": 5}}
    if system in ("umi", "multi-one-stage"):
        content["local_stage"] = {"steps": 2}
    if system == "multi-one-stage":
        del content["global_stage"]
    content |= changes
    return {key: value for key, value in content.items() if value is not None}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_committed_recipe_is_valid(path: Path):
    assert load_recipe(path).out.startswith("runs/")


def test_what_is_left_out_has_a_default():
    recipe = parse_recipe(glpft())
    assert isinstance(recipe, GlpftRecipe)
    assert (recipe.backbone, recipe.data.source, recipe.max_length) == ("umi-nano-base", "toolworld", 1024)


def test_a_backbone_can_be_a_shape_for_random_weights():
    recipe = parse_recipe(glpft(backbone={"hidden": 64}))
    assert isinstance(recipe, GlpftRecipe)
    assert recipe.backbone == NanoShape(hidden=64)


@pytest.mark.parametrize(
    ("content", "given", "meant"),
    [
        (glpft(batch_token=100), "batch_token", "batch_tokens"),
        (glpft(global_stage={"step": 3}), "global_stage.step", "steps"),
        (glpft(data={"sources": "a.jsonl"}), "data.sources", "source"),
        (glpft(global_stage={"steps": 3, "optimization": {"lerning_rate": 1}}), "lerning_rate", "learning_rate"),
        (glpft(backbone={"hiden": 64}), "hiden", "hidden"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_perhaps_meant(content: dict[str, Any], given: str, meant: str):
    with pytest.raises(RecipeError, match=rf"unknown key '[\w.]*{given}'; did you mean '{meant}'"):
        parse_recipe(content)


def test_a_key_of_another_kind_of_recipe_is_not_offered():
    content = {"task": "pretrain", "out": "somewhere", "steps": 5, "batch_tokens": 100}
    with pytest.raises(RecipeError, match="unknown key 'batch_tokens'") as caught:
        parse_recipe(content)
    assert "did you mean 'batch_tokens'" not in str(caught.value)


def test_an_unknown_key_like_no_other_comes_with_all_there_are():
    with pytest.raises(RecipeError, match=r"unknown key 'zzzzzz'; known keys: .*batch_tokens"):
        parse_recipe(glpft(zzzzzz=1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (glpft(max_length="long"), r"max_length: .*given: 'long'"),
        (glpft(max_length=3), r"max_length: .*given: 3"),
        (glpft(rationale_dropout=1.5), r"rationale_dropout: .*given: 1\.5"),
        (glpft(system="triple"), r"system: .*'single'.*given: 'triple'"),
        (glpft(precision="fp8"), r"precision: .*given: 'fp8'"),
        (glpft(global_stage=7), r"global_stage: .*given: 7"),
        (glpft(global_stage={"steps": 0}), r"global_stage\.steps: .*given: 0"),
        (glpft(global_stage={"minutes": -1}), r"global_stage\.minutes: .*given: -1"),
        (glpft(global_stage={"minutes": float("inf")}), r"global_stage\.minutes: .*given: inf"),
        (glpft(global_stage={"steps": 3, "optimization": {"optimizer": "sgd"}}), r"optimizer: .*given: 'sgd'"),
        (glpft(backbone={"hidden": 7}), r"backbone\.hidden: .*given: 7"),
        (glpft(out=None), r"out: Field required"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(content: dict[str, Any], said: str):
    with pytest.raises(RecipeError, match=said):
        parse_recipe(content)


@pytest.mark.parametrize("content", [{}, {"task": "eat"}, {"out": "x"}])
def test_the_task_has_to_be_one_that_is_known(content: dict[str, Any]):
    with pytest.raises(RecipeError, match="'task' must be 'pretrain' or 'glpft'"):
        parse_recipe(content)


@pytest.mark.parametrize("stage", [{}, {"steps": 5, "minutes": 1}, {"steps": 5, "trajectories": 9}])
def test_a_stage_has_one_budget(stage: dict[str, Any]):
    with pytest.raises(RecipeError, match="global_stage: give one of 'steps', 'minutes' and 'trajectories'"):
        parse_recipe(glpft(global_stage=stage))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (glpft(global_stage=None), "system 'umi' needs 'global_stage'"),
        (glpft(local_stage=None), "system 'umi' needs 'local_stage'"),
        (glpft("single", global_stage=None), "system 'single' needs 'global_stage'"),
        (glpft("single", local_stage={"steps": 1}), "'single' has one stage: remove 'local_stage'"),
        (glpft("single-multitask", local_stage={"steps": 1}), "'single-multitask' has one stage"),
        (glpft("multi-one-stage", local_stage=None), "'multi-one-stage' needs 'local_stage'"),
        (glpft("multi-one-stage", global_stage={"steps": 1}), "'multi-one-stage' .* remove 'global_stage'"),
        (glpft(stage_1="runs/a"), "'stage_1' .* remove"),
        (glpft("single", global_stage=None, stage_1="runs/a"), "'stage_1' .* 'umi'"),
        (glpft("multi-one-stage", stage_1="runs/a"), "'stage_1' .* 'umi'"),
    ],
)
def test_stages_fit_the_system(content: dict[str, Any], said: str):
    with pytest.raises(RecipeError, match=said):
        parse_recipe(content)


def test_the_global_stage_of_another_run_stands_in_for_one():
    recipe = parse_recipe(glpft(global_stage=None, stage_1="runs/a"))
    assert isinstance(recipe, GlpftRecipe)
    assert recipe.stage_1 == "runs/a"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("task: pretrain\nout: here\nsteps: 10\nshape: {hidden: 64}\n", encoding="utf-8")
    return path


def test_overrides_replace_and_add_keys(file: Path):
    recipe = load_recipe(file, ["steps=20", "shape.layers=2", "optimization.learning_rate=1e-3", "out=a=b"])
    assert isinstance(recipe, PretrainRecipe)
    assert (recipe.steps, recipe.shape.hidden, recipe.shape.layers, recipe.out) == (20, 64, 2, "a=b")
    assert recipe.optimization.learning_rate == 1e-3


@pytest.mark.parametrize("override", ["steps", "=3", "steps.more=3", "steps=[1"])
def test_an_override_that_makes_no_sense_is_shown(file: Path, override: str):
    with pytest.raises(RecipeError) as error:
        load_recipe(file, [override])
    assert repr(override) in str(error.value)


def test_an_override_with_an_unknown_key_is_refused_like_one_in_the_file(file: Path):
    with pytest.raises(RecipeError, match="unknown key 'stepz'; did you mean 'steps'"):
        load_recipe(file, ["stepz=3"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", ""])
def test_a_recipe_is_a_mapping(file: Path, text: str):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match="mapping"):
        load_recipe(file)


def test_what_is_no_yaml_is_refused(file: Path):
    file.write_text("a: [1\nb: }", encoding="utf-8")
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(file)
    file.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: No such file"):
        load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match="directory"):
        load_recipe(tmp_path)
