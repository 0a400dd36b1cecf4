"""The environment that the harness runs in, and the entries of the benchmark that come with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alpha_umi.errors import UserError
from alpha_umi.trajectory import atomic_write

VERSION = "2026.3.23"
"""Of the harness."""
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_HARNESS = Path(__file__).with_name("harness.py")
_DONE = "bfcl-requirements.txt"
_PYTHONS = ((3, 11), (3, 12))


@dataclass(frozen=True)
class Environment:
    """A prepared environment.

    Attributes:
        root: Its folder.
    """

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root.absolute() / "bin" / "python"  # it is called from another folder

    def command(self, model: str, *arguments: str) -> list[str]:
        """The harness's command line, with a model of this name made known to it as `registered` has it."""
        name = registered(model)
        return [str(self.python), "-I", str(_HARNESS), model, name, arguments[0], "--model", name, *arguments[1:]]

    def entries(self, category: str) -> list[str]:
        """The ids of a category's entries, in the order of its file."""
        (data,) = self.root.glob("lib/python*/site-packages/bfcl_eval/data")
        text = (data / f"BFCL_v4_{category}.json").read_text("utf-8")
        return [json.loads(line)["id"] for line in text.splitlines()]


def registered(model: str) -> str:
    """A model's name in the harness, which takes others for several names (commas) or paths (underscores)."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", model)


def prepared(root: Path) -> Environment | None:
    """The environment in this folder, if it is there and has what this version of the package wants."""
    done = root / _DONE
    return Environment(root) if done.exists() and done.read_text() == _REQUIREMENTS.read_text() else None


def prepare(root: Path, log: Path) -> Environment:
    """Makes the environment in this folder, or takes the one that is there.

    Args:
        root: An empty folder, one that isn't there, or one that an earlier call has made.
        log: Where the installer's words go.

    Raises:
        UserError: The folder has something else in it, this Python is none that the harness runs on, or the packages
            can't be installed.
    """
    found = prepared(root)
    if found is not None:
        return found
    if root.exists() and any(root.iterdir()) and not (root / "pyvenv.cfg").exists():
        raise UserError(f"--env {root}: the folder has something else in it; give an empty one, or none")
    if sys.version_info[:2] not in _PYTHONS:
        known = " or ".join(f"{major}.{minor}" for major, minor in _PYTHONS)
        raise UserError(f"bfcl-eval {VERSION} runs on Python {known}, and this is {sys.version.split()[0]}")
    venv.create(root, with_pip=True, clear=True)
    _install(Environment(root), log)
    with atomic_write(root / _DONE) as file:
        file.write(_REQUIREMENTS.read_text())
    return Environment(root)


def _install(environment: Environment, log: Path) -> None:
    pip = [str(environment.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    with log.open("w") as file:
        done = subprocess.run([*pip, "-r", str(_REQUIREMENTS)], stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise UserError(
            f"the packages of the harness can't be installed in {environment.root} ({_complaint(log)}); the "
            "first time a package index has to be reachable; pip's own settings hold, and --env names an environment "
            "that was made before"
        )


def _complaint(log: Path) -> str:
    """What the installer said last that it couldn't do."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith("ERROR: ")]
    return f"{lines[-1].removeprefix('ERROR: ')[:200]}; {log}" if lines else str(log)


def spread(ids: Sequence[str], limit: int | None) -> list[str]:
    """So many entries, evenly spread over all; all of them if there are no more or no limit is given."""
    if limit is None or limit >= len(ids):
        return list(ids)
    return [ids[number * len(ids) // limit] for number in range(limit)]
