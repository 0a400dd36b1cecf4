"""Systems evaluated in processes of their own: what goes wrong there is told here."""

from pathlib import Path

import psutil
import pytest

from alpha_umi.errors import UserError
from alpha_umi.evaluation.side_by_side import evaluate_systems
from alpha_umi.evaluation.toolworld_suite import Suite


def test_what_is_wrong_with_a_run_directory_is_raised_and_no_process_is_left(tmp_path: Path):
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(UserError, match="no_run"):
        evaluate_systems({"umi": tmp_path / "no_run"}, Suite.default(1, ["I1-Inst"]), tmp_path / "out", lambda *_: None)
    left = {child for child in psutil.Process().children() if child.pid not in before}
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in left)
