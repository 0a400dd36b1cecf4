import os
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples every time, on every machine
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public data sets: $ALPHA_UMI_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    path = Path(os.environ.get("ALPHA_UMI_DATA") or beside)
    if not path.is_dir():
        pytest.skip(f"the public data sets are not at {path}; set ALPHA_UMI_DATA to their folder")
    return path
