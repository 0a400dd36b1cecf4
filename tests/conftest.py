import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, on every machine, however slow it is; `make test-slow` takes many more.
for name, examples in (("repeatable", 25), ("thorough", 500)):
    settings.register_profile(
        name, max_examples=examples, derandomize=True, database=None, deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public data sets: $ALPHA_UMI_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    path = Path(os.environ.get("ALPHA_UMI_DATA") or beside)
    if not path.is_dir():
        pytest.skip(f"the public data sets are not at {path}; set ALPHA_UMI_DATA to their folder")
    return path


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A command called in this process sets torch's threads for itself; the next test finds those of before."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else int(os.environ.get("OMP_NUM_THREADS", "0"))
    yield
    torch = sys.modules.get("torch")
    if torch is not None and before and torch.get_num_threads() != before:
        torch.set_num_threads(before)
