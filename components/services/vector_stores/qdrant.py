"""A copy of an index as a collection of Qdrant.

Points are numbered by the row of the index and have the named vectors `image` and `text`, as far as an item has them,
and the payload `id`, `text`, `labels` and `columns`. A collection is named by the digest of its index; an alias leads
to it, and moves when the collection is whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagnn_core.artifacts import Artifact
from dagnn_core.errors import BackendError, InputError
from dagnn_core.search.export import describe, export_batches, rows_of, vectors_of
from dagnn_core.search.index import MODALITIES
from dagnn_core.text import one_line, quote

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import PointStruct

POINTS = 256  # of one request
TIMEOUT = 60  # seconds that a request may take


def load_qdrant(index: Artifact, collection: str, *, url: str, api_key: str | None = None) -> int:
    """Copy an index into a collection; searches find the old one until the new one is whole.

    Args:
        index: the index, whose checksums were checked.
        collection: the alias under which it is found.
        url: the server, as `http://HOST:6333`.
        api_key: of the server, if it has one.

    Returns:
        Number of points.

    Raises:
        InputError: a collection has the name of the alias, or qdrant-client is not installed.
        BackendError: the server cannot be reached, or refuses.
    """
    try:
        from qdrant_client import QdrantClient
    except ModuleNotFoundError as error:
        raise InputError("qdrant-client is not installed", "pip install 'dagnn[qdrant]'") from error
    with _answering(url):
        client = QdrantClient(url=url, api_key=api_key, timeout=TIMEOUT, check_compatibility=False)
        try:
            return fill_collection(client, index, collection)
        finally:
            client.close()


def fill_collection(client: "QdrantClient", index: Artifact, alias: str) -> int:
    """As `load_qdrant`, with a client that is open."""
    from qdrant_client import models

    aliases = {entry.alias_name: entry.collection_name for entry in client.get_aliases().aliases}
    if alias not in aliases and client.collection_exists(alias):
        raise InputError(
            f"Qdrant has a collection {quote(alias)}, which an alias cannot replace",
            "name another one with --collection",
        )
    name, old = f"{alias}-{index.content_digest[:16]}", aliases.get(alias)
    if old == name:  # it was whole when the alias came to it
        return client.count(name, exact=True).count
    if client.collection_exists(name):  # of a load that was interrupted
        client.delete_collection(name)
    vector = models.VectorParams(size=index.content["dim"], distance=models.Distance.COSINE)
    client.create_collection(
        name, vectors_config={"image": vector, "text": vector}, metadata={"dagnn": describe(index)}
    )
    client.upload_points(name, _points(index), batch_size=POINTS, wait=True)
    moves: list[models.AliasOperations] = [
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))
    ]
    if old is not None:
        moves.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    client.update_collection_aliases(moves)  # all of them or none
    if old is not None:
        client.delete_collection(old)
    return client.count(name, exact=True).count


def _points(index: Artifact) -> Iterator["PointStruct"]:
    from qdrant_client.models import PointStruct

    position = 0
    for batch in export_batches(index):
        vectors = [vectors_of(batch, modality) for modality in MODALITIES]
        for row, *of_row in zip(rows_of(batch), *vectors, strict=True):
            present: dict[str, Any] = {
                modality: vector.tolist()
                for modality, vector in zip(MODALITIES, of_row, strict=True)
                if vector is not None
            }
            yield PointStruct(id=position, vector=present, payload=row._asdict())
            position += 1


@contextmanager
def _answering(url: str) -> Iterator[None]:
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except ApiException as error:  # with what the server says, or why there was no answer
        raise BackendError(
            f"Qdrant at {url} failed: {one_line(error)}", "check --url, QDRANT_API_KEY, and the server"
        ) from error
