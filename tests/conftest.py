import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public data sets: $ALPHA_UMI_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    path = Path(os.environ.get("ALPHA_UMI_DATA") or beside)
    if not path.is_dir():
        pytest.skip(f"the public data sets are not at {path}; set ALPHA_UMI_DATA to their folder")
    return path
