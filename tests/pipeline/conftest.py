"""A Kubeflow server by the official description of its API, for contract tests of `dagnn submit` and `dagnn doctor`."""

from collections.abc import Iterator

import pytest

from tests.pipeline.kfp_server import DESCRIPTION, Description, KubeflowServer, serving


@pytest.fixture(scope="session")
def description() -> Description:
    if not DESCRIPTION.is_file():
        pytest.skip("the description of Kubeflow's API is not at ../shared/data/kfp_api")
    return Description(DESCRIPTION)


@pytest.fixture
def server(description: Description) -> Iterator[KubeflowServer]:
    """A server with nothing in it; at the end, nothing may have been asked or answered that the description lacks."""
    with serving(KubeflowServer(description)) as server:
        yield server
    assert server.violations == []
