import shutil
from pathlib import Path

import pytest

from components.services.tracking import Tracking


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """An MLflow database without experiments: making its tables takes seconds, so every test copies this one."""
    file = tmp_path_factory.mktemp("mlflow") / "new_folder" / "mlflow.db"
    Tracking(uri=f"sqlite:///{file}").client.get_experiment_by_name("none")
    return file


@pytest.fixture
def tracking(empty_database, tmp_path) -> Tracking:
    """Tracking in a database of its own."""
    file = tmp_path / "tracking" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_database, file)
    return Tracking(uri=f"sqlite:///{file}")
