from tests.fixtures.collection import collection

__all__ = ["collection"]
