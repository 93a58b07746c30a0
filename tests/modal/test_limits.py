"""Limits on Modal: the tests that every backend must pass, on what is deployed."""

import pytest

from tests.jobs_contract import Served
from tests.limits_contract import LIMITS_YAML, WORKFLOWS, LimitsContract

from .local import LocalModal
from .served import serve


@pytest.fixture(scope="module")
def served(modal: LocalModal, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The project with limits on a preview engine in a worker, which is up."""
    folder = tmp_path_factory.mktemp("limits") / "it"
    return Served(serve(modal, folder, "limits", limits=LIMITS_YAML, more=WORKFLOWS).url)


class TestModalBackend(LimitsContract):
    """What every backend must do."""
