from __future__ import annotations

from pathlib import Path

import pytest

from alpha_umi.data import Rejected, convert
from alpha_umi.trajectory import Trajectory


@pytest.fixture(scope="session")
def published(real_data: Path) -> dict[str, list[Trajectory]]:
    """TRAJECT-Bench's published records as trajectories, by folder; none of them is rejected."""
    found: dict[str, list[Trajectory]] = {}
    for folder in ("sequential", "parallel"):
        converted = list(convert(real_data / "traject-bench" / folder, "traject-bench"))
        found[folder] = [item for item in converted if not isinstance(item, Rejected)]
        assert len(found[folder]) == len(converted)
    return found
