from tests.fixtures.collection import OPTIONS, Collection, collection

__all__ = ["OPTIONS", "Collection", "collection"]
