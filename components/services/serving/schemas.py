"""The JSON that the service takes and gives; its OpenAPI document is made from these classes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Modality = Literal["image", "text"]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a character, expected text in Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class _Taken(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Options(_Taken):
    """What is searched, and what may be found."""

    target: Modality | None = Field(None, description="What is searched; by default texts for an image, else images.")
    k: int = Field(10, ge=1, description="Number of results.")
    labels: Text = Field("", description="Labels of the results, such as `beach and not person`.")
    filters: list[Text] = Field([], description="Values of columns of the results, each `column=value`.")
    min_score: float = Field(-1.0, ge=-1, le=1, description="Smallest cosine of a result.")


class SearchRequest(Options):
    """One query: exactly one of text, id, vector and image."""

    text: Text | None = Field(None, description="A text.")
    id: Text | None = Field(None, description="An item of the index.")
    vector: list[float] | None = Field(None, description="An embedding of the model; needs `modality`.")
    modality: Modality | None = Field(None, description="What `vector` was made from.")
    image: str | None = Field(None, description="An encoded image (JPEG, PNG ...) in base64.")


class BatchRequest(_Taken):
    """Several queries."""

    queries: Annotated[list[SearchRequest], Field(min_length=1)]


class Model(BaseModel):
    """The model that answers."""

    name: str | None = Field(description="Name of the registered model; null for a folder.")
    version: str | None = Field(description="Its version; null for a folder.")
    digest: str


class Item(BaseModel):
    """An item of the index."""

    id: str
    text: str
    labels: tuple[str, ...]
    columns: dict[str, str | None]
    thumbnail: str | None = Field(description="Where its thumbnail is; null where it has none.")


class Hit(Item):
    """A result."""

    rank: int = Field(description="From 1.")
    score: float = Field(description="The cosine.")
    probability: float | None = Field(description="That query and item share a label; null where the model says none.")
    reasons: dict[str, float] = Field(description="The labels that both most probably have.")


class Answer(BaseModel):
    """What was found for a query."""

    target: Modality
    relevant: bool | None = Field(description="Whether a result is probably relevant; null where the model says none.")
    nearest_labels: dict[str, float] = Field(description="The labels that most probably apply to the query.")
    hits: tuple[Hit, ...]
    model: Model
    index: str = Field(description="Digest of the index.")


class BatchAnswer(BaseModel):
    """What was found for each query."""

    results: tuple[Answer, ...]


class Takes(BaseModel):
    """Which queries the model can embed."""

    text: bool
    image: bool


class IndexDescription(BaseModel):
    """The index and the model."""

    items: int
    images: int
    texts: int
    dim: int
    digest: str
    model: Model
    labels: dict[str, int] = Field(description="Label -> items that have it.")
    columns: tuple[str, ...] = Field(description="What items can be filtered by.")
    takes: Takes
    max_k: int = Field(description="Most results of a query.")


class Registry(BaseModel):
    """Whether the registry of the models can be reached."""

    reachable: bool
    since: str | None = Field(description="Since when it cannot be reached (ISO 8601, UTC); null where it can.")


class Readiness(BaseModel):
    """What the service answers with, and what it waits for."""

    ready: bool
    model: Model | None
    index: str | None = Field(description="Digest of the index.")
    registry: Registry | None = Field(description="Null where no version of a registry is followed.")
    loading: str | None = Field(description="Version or folder that is being loaded.")
    fault: str | None = Field(description="Why the newest model or index is not served.")


class Alive(BaseModel):
    """The process lives."""

    alive: bool


class Failure(BaseModel):
    """What failed, and what to do about it."""

    error: str
    remedy: str
