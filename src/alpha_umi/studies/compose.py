"""A run directory put together from the roles of others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from alpha_umi.errors import RunDirectoryError
from alpha_umi.run_directory import BACKBONE, read_info, replaced, role_folder
from alpha_umi.transcript import ROLES, Role


def compose_run(out: Path, parts: Mapping[Role, tuple[Path, Role]]) -> Path:
    """Copies role models into a run of the variant ``full``; an existing one is kept.

    Args:
        out: The new run directory.
        parts: By role, a finished ``full`` run and which of its models is to play the role.

    Raises:
        RunDirectoryError: A run has no such model, or the runs write different transcripts.
    """
    if read_info(out) is not None:
        return out
    infos = {path: read_info(path) for path, _ in parts.values()}
    known = [info for info in infos.values() if info is not None]
    if len(known) < len(infos):
        raise RunDirectoryError(f"{next(p for p, i in infos.items() if i is None)} is not a run directory")
    if len({info.renderer.fingerprint for info in known}) > 1:
        raise RunDirectoryError("roles can only be put together from runs whose transcripts are rendered alike")
    first = parts["planner"][0]
    info = known[0].model_copy(update={
        "system": "umi", "done": ["global", *(f"local/{role}" for role in ROLES)], "costs": {}, "losses": {},
        "recipe": {"composed": {role: [path.name, theirs] for role, (path, theirs) in parts.items()}},
    })  # fmt: skip
    with replaced(out) as partial:
        shutil.copytree(first / BACKBONE, partial / BACKBONE)
        for role, (path, theirs) in parts.items():
            source = role_folder(path, "full", theirs)
            if not source.is_dir():
                raise RunDirectoryError(f"{path} has no full model of a {theirs}")
            shutil.copytree(source, partial / role)
        info.save(partial)
    return out
