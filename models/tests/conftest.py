"""What several test files need."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shapes_folder():
    """Lists of every variant's state dict: `specs/shapes` in the folder VITLET_DATA, or in one beside the checkout."""
    data = Path(os.environ.get("VITLET_DATA") or Path(__file__).parents[2].parent / "shared")
    folder = data / "specs" / "shapes"
    if folder.is_dir():
        return folder
    reason = f"not run: no data ({folder}; the variable VITLET_DATA names the folder that holds specs/)"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, which is a failure in CI")
    pytest.skip(reason)
