"""How the command starts: at once, and without what it doesn't need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "numpy", "matplotlib", "peft", "accelerate")


def test_help_takes_less_than_a_second():
    """CPU time, so that what else runs on the machine doesn't count; the better of two, so that files are warm."""
    umi = Path(sys.executable).with_name("umi")
    seconds = []
    for _ in range(2):
        process = subprocess.Popen([str(umi), "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate()[0], b""
        assert process.returncode == 0, err
        assert b"quickstart" in out
        usage = os.times()
        seconds.append(usage.children_user + usage.children_system)
    assert seconds[1] - seconds[0] < 1.0


@pytest.mark.parametrize(
    "arguments", [[], ["train"], ["eval", "live"], ["data", "convert"]], ids=lambda a: " ".join(a) or "umi"
)
def test_help_imports_nothing_heavy(arguments: list[str]):
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules)))\n"
        f"sys.argv = ['umi', *{arguments!r}, '--help']\n"
        "from alpha_umi.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_every_verb_has_a_line_of_help():
    from typer.main import get_command

    from alpha_umi.cli import app

    def verbs(group):
        for command in group.commands.values():
            yield from verbs(command) if hasattr(command, "commands") else [command]

    found = list(verbs(get_command(app)))
    assert len(found) >= 8
    assert all(command.help for command in found)


def test_the_help_tells_the_minutes_that_the_quickstart_takes():
    from typer.main import get_command

    from alpha_umi.cli import app
    from alpha_umi.quickstart import DEFAULT_MINUTES

    quickstart = getattr(get_command(app), "commands")["quickstart"]  # noqa: B009
    (minutes,) = [option for option in quickstart.params if option.name == "minutes"]
    assert f"[default: {DEFAULT_MINUTES:g}]" in minutes.help
