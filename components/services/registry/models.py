"""Registered models: those that people see, and the ledgers of their champions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEDGER_SUFFIX = "-promotions"
"""What the name of a ledger ends in; see `components.services.promotion.ledger`."""


def ensure_registered_model(client: "MlflowClient", name: str, description: str) -> None:
    """Create a registered model, unless there is one of this name."""
    from mlflow.exceptions import MlflowException

    if not client.search_registered_models(filter_string=f"name = '{name}'", max_results=1):
        try:
            client.create_registered_model(name, description=description)
        except MlflowException as error:  # somebody was quicker, or our own request whose answer was lost
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
