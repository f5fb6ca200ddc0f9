"""Requests and responses of the reranking APIs of Cohere, Jina, vLLM and Text Embeddings Inference."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, StrictBool, Tag

from lorarec.data import ITEM, TITLE, Dataset
from lorarec.serving.experiment_schemas import AdapterVersions, VariantName
from lorarec.serving.fusion import FUSION
from lorarec.serving.request_prompts import TITLE_PREFIX, RequestCase
from lorarec.serving.response_schemas import RankResponse
from lorarec.serving.schemas import MAX_CANDIDATES, MAX_HISTORY, Integer, Text, refuse_nul

#: Maximum number of characters of a title, as everywhere.
MAX_TITLE = 500
MAX_QUERY = MAX_HISTORY * (MAX_TITLE + 2)


def _check_titles(query: str) -> str:
    """Refuse a query that is no history."""
    titles = query_titles(query)
    if not titles:
        raise ValueError("the query has no title: give the titles of the history, one per line, oldest first")
    if len(titles) > MAX_HISTORY:
        raise ValueError(f"the query has {len(titles)} titles, one per line: give the latest {MAX_HISTORY}")
    longest = max(map(len, titles))
    if longest > MAX_TITLE:
        raise ValueError(
            f"the query has a line of {longest} characters: give titles of at most {MAX_TITLE}, one per line"
        )
    return query


Query = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_QUERY,
        description="The history: one title per line, oldest first. Space around titles and empty lines are left out.",
    ),
    AfterValidator(refuse_nul),
    AfterValidator(_check_titles),
]
_NO_EFFECT = "Has no effect: titles are read as in the training of the adapter."


class _RerankRequest(BaseModel):
    #: Names of the fields of other requests in this one.
    field_names: ClassVar[dict[str, str]]

    query: Query

    @property
    def titles(self) -> list[str]:
        """Title of each document."""
        raise NotImplementedError

    model_config = ConfigDict(extra="forbid")


class RerankDocument(BaseModel):
    """A document as an object; fields other than `text` are not read."""

    text: Annotated[Text, Field(description="Title of the document.")]


class RerankRequest(_RerankRequest):
    """Documents to rank for a query, as for Cohere, Jina and vLLM.

    A text that is the title of an item of the catalogue stands for this item, the first one if several have the title.
    Any other text is a title that nobody has seen.
    """

    field_names = {"candidates": "documents", "adapter": "model"}

    documents: Annotated[
        list[Text | RerankDocument],
        Field(
            min_length=1, max_length=MAX_CANDIDATES, description="Titles to rank, as texts or as objects with `text`."
        ),
    ]
    model: Annotated[
        Text | None,
        Field(
            description="Name or alias of a loaded adapter, or `fusion` for the fusion. Without the field the first "
            "variant of the experiment answers, if there is one, or the fusion, or the default adapter; if the service "
            "has none of them, the field is optional only if exactly one adapter is loaded."
        ),
    ] = None
    top_n: Annotated[
        Integer | None,
        Field(ge=0, description="Maximum number of results; all documents by default and, as in vLLM, with 0."),
    ] = None
    return_documents: Annotated[StrictBool | None, Field(description="Whether results have the documents.")] = None
    rank_fields: Annotated[
        list[Literal["text"]] | None,
        Field(min_length=1, max_length=1, description="`text` only: other fields of documents are not read."),
    ] = None
    max_chunks_per_doc: Annotated[Integer | None, Field(description=_NO_EFFECT)] = None
    max_tokens_per_doc: Annotated[Integer | None, Field(description=_NO_EFFECT)] = None
    truncation: Annotated[StrictBool | None, Field(description=_NO_EFFECT)] = None
    truncate_prompt_tokens: Annotated[Integer | None, Field(description=_NO_EFFECT)] = None
    user: Annotated[Text | None, Field(description="Has no effect: the history is the query.")] = None
    priority: Annotated[Integer | None, Field(description="Has no effect: requests are answered in order.")] = None

    @property
    def titles(self) -> list[str]:
        return [document if isinstance(document, str) else document.text for document in self.documents]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "general", "query": "Toy Story\nHeat", "documents": ["Antz", "A Bug's Life"], "top_n": 1},
                {
                    "model": "general",
                    "query": "Toy Story",
                    "documents": [{"text": "Antz"}, {"text": "A title nobody has seen yet"}],
                    "return_documents": True,
                },
            ]
        }
    )


class TextsRerankRequest(_RerankRequest):
    """Texts to rank for a query, as for Text Embeddings Inference.

    Texts are titles as in `/v1/rerank`. The fusion answers, or else the default adapter or the only loaded one.
    """

    field_names = {"candidates": "texts", "adapter": "model"}

    texts: Annotated[
        list[Text], Field(min_length=1, max_length=MAX_CANDIDATES, description="Titles to rank, in any order.")
    ]
    model: Annotated[
        Text | None,
        Field(description="As in `/v1/rerank`."),
    ] = None
    raw_scores: Annotated[
        StrictBool | None,
        Field(description="Whether results have the `score` of `/v1/rank` in place of the probability."),
    ] = None
    return_text: Annotated[StrictBool | None, Field(description="Whether results have the texts.")] = None
    truncate: Annotated[StrictBool | None, Field(description=_NO_EFFECT)] = None
    truncation_direction: Annotated[str | None, Field(max_length=10, description=_NO_EFFECT)] = None

    @property
    def titles(self) -> list[str]:
        return self.texts

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "general", "query": "Toy Story\nHeat", "texts": ["Antz", "A Bug's Life"]}]
        }
    )


def _kind_of_request(value: Any) -> str:
    """Return the tag of the alternative that a client means, so that errors are those of one alternative."""
    has_documents = isinstance(value, RerankRequest) or (isinstance(value, dict) and "documents" in value)
    return "RerankRequest" if has_documents else "TextsRerankRequest"


#: The request of either kind of client: with `documents`, that of vLLM; otherwise, that of Text Embeddings Inference.
AnyRerankRequest = Annotated[
    Annotated[RerankRequest, Tag("RerankRequest")] | Annotated[TextsRerankRequest, Tag("TextsRerankRequest")],
    Discriminator(_kind_of_request),
]


class RerankResult(BaseModel):
    """A ranked document."""

    index: Annotated[int, Field(description="Index of the document in the request, from 0.")]
    relevance_score: Annotated[
        float,
        Field(description="Posterior probability among all documents of the request, as `probability` of `/v1/rank`."),
    ]
    document: Annotated[RerankDocument | None, Field(description="The document, if the request asks for it.")] = None


class RerankUsage(BaseModel):
    """Size of a request."""

    prompt_tokens: Annotated[int, Field(description="Number of tokens that the language model read.")]
    total_tokens: Annotated[int, Field(description="The same number, since nothing is generated.")]


class RerankResponse(BaseModel):
    """Ranked documents."""

    id: Annotated[str, Field(description="Id of the request.")]
    model: Annotated[str, Field(description="Name of the adapter that answered, or `fusion`.")]
    results: Annotated[list[RerankResult], Field(description="Documents, best first.")]
    usage: RerankUsage
    versions: AdapterVersions
    variant: VariantName = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "checkout-7f3a",
                    "model": "general",
                    "results": [{"index": 1, "relevance_score": 0.62}],
                    "usage": {"prompt_tokens": 64, "total_tokens": 64},
                    "versions": {"general": "7d0e5c1f"},
                }
            ]
        }
    )


class TextsRerankResult(BaseModel):
    """A ranked text."""

    index: Annotated[int, Field(description="Index of the text in the request, from 0.")]
    score: Annotated[float, Field(description="Posterior probability among all texts, or the raw score.")]
    text: Annotated[str | None, Field(description="The text, if the request asks for it.")] = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"index": 1, "score": 0.62}]})


def query_titles(query: str) -> list[str]:
    """Return the titles of a query: its lines without space around them, and without empty ones."""
    return [title for line in query.split("\n") if (title := line.strip())]


def rerank_case(request: RerankRequest | TextsRerankRequest, dataset: Dataset) -> RequestCase:
    """Return the case of a request, in which the titles of items of the catalogue are replaced by their ids."""
    history, candidates = query_titles(request.query), request.titles
    found = _items_by_title(dataset, [*history, *candidates])

    def items(titles: Sequence[str]) -> list[str]:
        return [found.get(title.strip(), TITLE_PREFIX + title) for title in titles]

    return RequestCase(None, items(history), items(candidates))


def _items_by_title(dataset: Dataset, titles: Sequence[str]) -> dict[str, str]:
    """Return the ids of items with given titles; if several have a title, the first of the catalogue."""
    wanted = {title.strip() for title in titles}
    found = dataset.items.filter(pl.col(TITLE).is_in(wanted)).unique(TITLE, keep="first", maintain_order=True)
    return dict(zip(found[TITLE].to_list(), found[ITEM].to_list(), strict=True))


def rerank_response(request: RerankRequest, ranked: RankResponse, request_id: str) -> RerankResponse:
    """Convert a ranking to the response of Cohere, Jina and vLLM."""
    model = FUSION if ranked.fusion else next(iter(ranked.mixture))
    titles = request.titles
    results = [
        RerankResult(
            index=item.candidate,
            relevance_score=item.probability,
            document=RerankDocument(text=titles[item.candidate]) if request.return_documents else None,
        )
        for item in ranked.ranking[: request.top_n or None]
    ]
    usage = RerankUsage(prompt_tokens=ranked.tokens, total_tokens=ranked.tokens)
    return RerankResponse(
        id=request_id, model=model, results=results, usage=usage, versions=ranked.versions, variant=ranked.variant
    )


def texts_response(request: TextsRerankRequest, ranked: RankResponse) -> list[TextsRerankResult]:
    """Convert a ranking to the response of Text Embeddings Inference."""
    return [
        TextsRerankResult(
            index=item.candidate,
            score=item.score if request.raw_scores else item.probability,
            text=request.texts[item.candidate] if request.return_text else None,
        )
        for item in ranked.ranking
    ]
