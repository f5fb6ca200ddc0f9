"""The reranking APIs: a query is a history of titles, and documents are titles."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset
from lorarec.ranking import Fusion
from lorarec.scoring import posterior
from lorarec.serving.schemas import MAX_HISTORY
from lorarec.serving.service import Service

HISTORY, CANDIDATES = ["x01", "x07", "x12"], ["x05", "x29", "x18", "x00"]
NEW = "A title nobody has seen"


@pytest.fixture
def titles(shop: Dataset) -> dict[str, str]:
    return shop.titles


def body_of(titles: dict[str, str], **others: Any) -> dict[str, Any]:
    query = "\n".join(titles[item] for item in HISTORY)
    return {"model": "general", "query": query, "documents": [titles[item] for item in CANDIDATES], **others}


@pytest.mark.parametrize("model", ["general", "listed"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_scores_and_order_are_those_of_the_offline_ranker(
    service: Service, offline: Any, titles: dict[str, str], play: Any, model: str, path: str
) -> None:
    scores = offline.scores({model: 1.0}, None, HISTORY, CANDIDATES)

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = (await client.post(path, json=body_of(titles, model=model))).json()
        found = [result["index"] for result in answer["results"]]
        assert found == list(np.argsort(-scores, kind="stable"))
        given = [result["relevance_score"] for result in answer["results"]]
        np.testing.assert_allclose(given, posterior(scores)[found], rtol=1e-4)
        assert math.isclose(sum(given), 1, rel_tol=1e-6)
        assert answer["model"] == model
        assert set(answer["results"][0]) == {"index", "relevance_score"}
        # A ranking of the same items by their ids is the same.
        ids = {"history": HISTORY, "candidates": CANDIDATES, "adapter": model}
        ranked = (await client.post("/v1/rank", json=ids)).json()
        assert given == [item["probability"] for item in ranked["ranking"]]
        assert answer["usage"] == {"prompt_tokens": ranked["tokens"], "total_tokens": ranked["tokens"]}

    play(service, scenario)


def test_other_titles_are_those_that_nobody_has_seen(service: Service, titles: dict[str, str], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        query = f"\n  {titles['x01']}\t\r\n\n{NEW}\n"
        body = {"model": "general", "query": query, "documents": [NEW, {"text": titles["x05"], "id": 7}, NEW.upper()]}
        answer = (await client.post("/v1/rerank", json=body | {"return_documents": True})).json()
        candidates = [{"title": NEW}, "x05", {"title": NEW.upper()}]
        ids = {"history": ["x01", {"title": NEW}], "candidates": candidates, "adapter": "general"}
        ranked = (await client.post("/v1/rank", json=ids)).json()["ranking"]
        assert [(each["index"], each["relevance_score"]) for each in answer["results"]] == [
            (item["candidate"], item["probability"]) for item in ranked
        ]
        texts = [NEW, titles["x05"], NEW.upper()]
        assert all(each["document"] == {"text": texts[each["index"]]} for each in answer["results"])
        best = (await client.post("/v1/rerank", json=body | {"top_n": 1})).json()["results"]
        assert best == [{key: answer["results"][0][key] for key in ("index", "relevance_score")}]
        every = (await client.post("/v1/rerank", json=body | {"top_n": 100})).json()["results"]
        assert len(every) == 3

    play(service, scenario)


def test_a_title_of_several_items_is_that_of_the_first(
    make_service: Callable[..., Service], offline: Any, play: Any
) -> None:
    shop = offline.dataset
    twins = shop.items.with_columns(
        title=pl.when(pl.col("item_id") == "x18").then(pl.lit("green lamp")).otherwise("title")
    )
    offline.dataset = Dataset.from_frames("shop", shop.interactions, twins)
    assert offline.dataset.titles["x18"] == offline.dataset.titles["x01"] == "green lamp"

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"model": "general", "query": "red table", "documents": ["green lamp", "red lamp", "green lamp "]}
        answer = (await client.post("/v1/rerank", json=body)).json()["results"]
        ids = {"history": ["x10"], "candidates": ["x01", "x00", "x01"], "adapter": "general"}
        ranked = (await client.post("/v1/rank", json=ids)).json()["ranking"]
        assert [each["index"] for each in answer] == [item["candidate"] for item in ranked]
        assert [each["relevance_score"] for each in answer] == [item["probability"] for item in ranked]

    play(make_service(), scenario)


def test_texts_are_ranked_as_by_text_embeddings_inference(
    service: Service, offline: Any, titles: dict[str, str], play: Any
) -> None:
    scores = offline.scores({"general": 1.0}, None, HISTORY, CANDIDATES)
    order = list(np.argsort(-scores, kind="stable"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = body_of(titles, truncate=False)
        body["texts"] = body.pop("documents")
        answer = (await client.post("/rerank", json=body)).json()
        assert [each["index"] for each in answer] == order
        np.testing.assert_allclose([each["score"] for each in answer], posterior(scores)[order], rtol=1e-4)
        assert set(answer[0]) == {"index", "score"}
        answer = (await client.post("/rerank", json=body | {"raw_scores": True, "return_text": True})).json()
        np.testing.assert_allclose([each["score"] for each in answer], scores[order], atol=1e-4)
        assert [each["text"] for each in answer] == [body["texts"][index] for index in order]

    play(service, scenario)


def test_without_a_model_the_only_adapter_answers(
    make_service: Callable[..., Service], titles: dict[str, str], play: Any
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = body_of(titles)
        named = (await client.post("/v1/rerank", json=body)).json()
        del body["model"]
        answer = (await client.post("/v1/rerank", json=body)).json()
        assert (answer["model"], answer["results"]) == ("general", named["results"])

    play(make_service(load=["general"]), scenario)


def test_documents_at_the_path_of_texts_are_ranked_as_by_vllm(
    service: Service, titles: dict[str, str], play: Any
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = body_of(titles, top_n=3, return_documents=True)
        expected, answer = [(await client.post(path, json=body)).json() for path in ("/v1/rerank", "/rerank")]
        assert expected.pop("id") != answer.pop("id")
        assert answer == expected
        for change, fields in (
            ({"documents": [3], "top_n": -1}, ["documents.0", "top_n"]),
            ({"texts": ["a"]}, ["texts"]),
        ):
            refused = await client.post("/rerank", json=body | change)
            assert (refused.status_code, [each["field"] for each in refused.json()["errors"]]) == (422, fields)
        refused = await client.post("/rerank", json={"query": "a"})
        assert (refused.status_code, [each["field"] for each in refused.json()["errors"]]) == (422, ["texts"])

    play(service, scenario)


@pytest.mark.parametrize("model", [None, "fusion"])
def test_the_fusion_answers(
    make_fused: Callable[..., Service], offline_fusion: Fusion, titles: dict[str, str], play: Any, model: str | None
) -> None:
    columns = {"user_id": [None], "history": [HISTORY], "candidates": [CANDIDATES]}
    cases = pl.DataFrame(columns, schema_overrides={"user_id": pl.String})
    (scores,) = offline_fusion.score_with_parts(cases, pool=False)

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = (await client.post("/v1/rerank", json=body_of(titles, model=model))).json()
        assert answer["model"] == "fusion"
        assert answer["usage"]["total_tokens"] > 0
        for result in answer["results"]:
            expected = math.exp(scores.log_probabilities[result["index"]])
            assert math.isclose(result["relevance_score"], expected, rel_tol=1e-3)
        refused = await client.post("/v1/rerank", json=body_of(titles, model=model, documents=[titles["x00"], NEW]))
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "documents.1")

    play(make_fused(), scenario)


@pytest.mark.parametrize(
    ("change", "status", "field", "message"),
    [
        ({"model": "rerank-v3.5"}, 404, "model", "loaded general"),
        ({"model": None}, 422, "model", "name an adapter"),
        ({"query": ""}, 422, "query", "at least 1"),
        ({"query": " \n\t\n"}, 422, "query", "one per line, oldest first"),
        ({"query": "a\0"}, 422, "query", "NUL"),
        ({"query": "a\n" * (MAX_HISTORY + 1)}, 422, "query", f"give the latest {MAX_HISTORY}"),
        ({"query": f"Heat\n{'a' * 501}"}, 422, "query", "a line of 501 characters"),
        ({"documents": []}, 422, "documents", "at least 1"),
        ({"documents": [""]}, 422, "documents.0", "at least 1"),
        ({"documents": [{"image": "red.png"}]}, 422, "documents.0.text", "required"),
        ({"documents": [3]}, 422, "documents.0", "string"),
        ({"top_n": -1}, 422, "top_n", "greater than or equal to 0"),
        ({"rank_fields": ["title"]}, 422, "rank_fields.0", "should be 'text'"),
        ({"user_id": "u01"}, 422, "user_id", "not permitted"),
    ],
)
def test_bad_requests_name_the_field(
    titles: dict[str, str],
    play_shared: Any,
    change: dict[str, Any],
    status: int,
    field: str | None,
    message: str,
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/rerank", json=body_of(titles, **change))
        assert answer.status_code == status, answer.text
        assert message in answer.json()["detail"]
        assert [each["field"] for each in answer.json()["errors"]] == ([] if field is None else [field])

    play_shared(scenario)


@pytest.fixture
def reranked(
    service: Service, offline: Any, titles: dict[str, str], served: Callable[..., AbstractContextManager[str]]
) -> Any:
    """URL of a service with the key `secret`, a query, documents, and their indices and probabilities, best first."""
    scores = offline.scores({"general": 1.0}, None, HISTORY, CANDIDATES)
    order = [int(index) for index in np.argsort(-scores, kind="stable")]
    body = body_of(titles)
    with served(service, "secret") as url:
        yield url, body["query"], body["documents"], order, posterior(scores)[order]


def test_the_client_of_cohere(reranked: Any) -> None:
    cohere = pytest.importorskip("cohere")
    url, query, documents, order, probabilities = reranked
    for client in (cohere.Client("secret", base_url=url), cohere.ClientV2("secret", base_url=url)):
        answer = client.rerank(model="general", query=query, documents=documents, top_n=3)
        assert [result.index for result in answer.results] == order[:3]
        np.testing.assert_allclose([each.relevance_score for each in answer.results], probabilities[:3], rtol=1e-4)
    with pytest.raises(cohere.NotFoundError):
        cohere.ClientV2("secret", base_url=url).rerank(model="rerank-v3.5", query=query, documents=documents)


def test_the_client_of_jina_in_langchain(reranked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jina = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    url, query, documents, order, probabilities = reranked
    monkeypatch.setattr(jina, "JINA_API_URL", f"{url}/v1/rerank")
    client = jina.JinaRerank(jina_api_key="secret", model="general", top_n=3)
    answer = client.rerank(documents, query)
    assert [result["index"] for result in answer] == order[:3]
    np.testing.assert_allclose([each["relevance_score"] for each in answer], probabilities[:3], rtol=1e-4)


def test_fields_that_clients_leave_empty_have_their_default(
    service: Service, titles: dict[str, str], play: Any
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = body_of(titles)
        plain = (await client.post("/v1/rerank", json=body)).json()["results"]
        assert len(plain) == len(body["documents"])
        # vLLM takes 0 for all documents, and clients of pydantic models send null.
        empty = {"top_n": 0, "return_documents": None, "rank_fields": None, "truncate_prompt_tokens": -1, "user": "me"}
        assert (await client.post("/v1/rerank", json=body | empty)).json()["results"] == plain
        texts = {"query": body["query"], "texts": body["documents"], "model": body["model"]}
        listed = (await client.post("/rerank", json=texts)).json()
        empty = {"raw_scores": None, "return_text": None, "truncate": None, "truncation_direction": None}
        assert (await client.post("/rerank", json=texts | empty)).json() == listed

    play(service, scenario)
