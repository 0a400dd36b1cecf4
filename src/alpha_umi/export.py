"""``umi export``: a run's roles as other programs load them.

``peft`` gives a folder a role with its adapter, as PEFT and servers with LoRA read it, and the backbone beside them.
``merged`` gives a whole model a role, for programs that know no adapters. An activated adapter is off before the role's
header, so no single set of weights computes what it does: ``alora`` is not merged.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.run_directory import (
    BACKBONE,
    Run,
    load_model,
    load_run,
    load_tokenizer,
    replaced,
    role_folder,
    save_model,
)
from alpha_umi.trajectory import write_json
from alpha_umi.transcript import ROLES, Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Form = Literal["peft", "merged"]
_CONFIG = "adapter_config.json"


def export_run(directory: Path, form: str, out: Path, variant: str | None = None) -> list[Path]:
    """Writes the roles of a run into folders of their own.

    Args:
        directory: A finished run with a model or an adapter a role.
        form: ``peft`` or ``merged``.
        out: A new or empty folder; it gets one folder a role, and with ``peft`` ``backbone/``.
        variant: ``full``, ``lora`` or ``alora``; None takes the first of the run's recipe.

    Returns:
        The roles' folders.

    Raises:
        RunDirectoryError: It isn't such a run, isn't finished, or has no such variant.
        UserError: The variant can't be had in this form, or there is something at ``out``.
    """
    if form not in get_args(Form):
        raise UserError(f"--as {form}: there is no such form; there are {' and '.join(get_args(Form))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; give a new or an empty folder")
    run = load_run(directory, variant)
    if run.info.system not in ("umi", "multi-one-stage"):
        raise RunDirectoryError(f"{directory} is a run of one model ({run.info.system}): {BACKBONE}/ is that model")
    if form == "peft" and run.variant is None:
        raise UserError(f"{directory}: its variant full is whole models, no adapters; export it with --as merged")
    if form == "merged" and run.variant == "alora":
        raise UserError(
            f"{directory}: its variant alora can't be merged, as an activated adapter is off before its role's header; "
            "export it with --as peft, or a lora or full variant with --as merged"
        )
    with replaced(out) as partial:
        (_write_adapters if form == "peft" else _write_models)(run, partial, out.resolve())
    return [out / role for role in ROLES]


def _write_adapters(run: Run, partial: Path, out: Path) -> None:
    shutil.copytree(run.directory / BACKBONE, partial / BACKBONE)
    for role in ROLES:
        shutil.copytree(role_folder(run.directory, str(run.variant), role), partial / role)
        path = partial / role / _CONFIG
        config = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, config | {"base_model_name_or_path": str(out / BACKBONE)})


def _write_models(run: Run, partial: Path, out: Path) -> None:
    for role in ROLES:
        if run.variant is None:
            shutil.copytree(role_folder(run.directory, "full", role), partial / role)
        else:
            save_model(_merged(run, role), load_tokenizer(str(run.directory / BACKBONE)), partial / role)


def _merged(run: Run, role: Role) -> PreTrainedModel:
    """The backbone with a role's adapter added to its weights, by PEFT."""
    from peft import PeftModel

    folder = role_folder(run.directory, "lora", role)
    model = PeftModel.from_pretrained(load_model(str(run.directory / BACKBONE)), str(folder))
    return cast("PreTrainedModel", model.merge_and_unload())
