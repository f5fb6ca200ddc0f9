"""Servers that answer as vLLM 0.32 and SGLang document, and compute the answers with a tiny model of transformers."""

import json
import math
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import torch

from lorarec.io import JsonObject

#: An answer: its status and its body, or a body alone.
Answer = tuple[int, Any] | Any


class StandIn:
    """A server of a tiny model and of copies of it with adapters.

    Args:
        models: Models by name; the first is the backbone, the others are adapters.
        answers: Functions by path that return the answer to a request's body in place of the documented one.

    Attributes:
        url: Address of the server.
        requests: Path, body and headers of each request.
        most_at_once: Largest number of requests that were answered at the same time.
    """

    def __init__(self, models: Mapping[str, Any], answers: Mapping[str, Callable[[Any], Answer]] | None = None) -> None:
        self.models = dict(models)
        self.backbone = next(iter(self.models))
        self.requests: list[tuple[str, Any, Mapping[str, str]]] = []
        self.most_at_once = self._at_once = 0
        self._answers = {"/v1/models": self._list, **self.endpoints(), **(answers or {})}
        self._lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                with stand_in.counted(self.path, body, self.headers):
                    found = stand_in.answer(self.path, body)
                status, content = found if isinstance(found, tuple) else (200, found)
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def endpoints(self) -> dict[str, Callable[[Any], Answer]]:
        """Return the function that answers each path."""
        raise NotImplementedError

    def counted(self, path: str, body: Any, headers: Mapping[str, str]) -> "_Counted":
        """Record a request and count it while it is answered."""
        return _Counted(self, path, body, headers)

    def answer(self, path: str, body: Any) -> Answer:
        """Return the answer to a request."""
        if path not in self._answers:
            return 404, {"detail": "Not Found"}
        return self._answers[path](body)

    def _list(self, _: Any) -> JsonObject:
        cards: list[JsonObject] = [
            {"id": name, "object": "model", "root": name, "parent": None if name == self.backbone else self.backbone}
            for name in self.models
        ]
        cards[0]["max_model_len"] = self.models[self.backbone].config.max_position_embeddings
        return {"object": "list", "data": cards}

    @torch.no_grad()
    def logprobs(self, name: str, ids: list[int]) -> torch.Tensor:
        """Return the log-probabilities (tokens, vocabulary) of the token after each one."""
        with self._lock:
            return self.models[name](input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)

    def greedy(self, name: str, ids: list[int], count: int, stop: set[int], allowed: list[int] | None) -> list[int]:
        """Generate tokens up to one of `stop`, which is included."""
        new: list[int] = []
        while len(new) < count and not (new and new[-1] in stop):
            logprobs = self.logprobs(name, ids + new)[-1]
            new.append(int(logprobs.argmax()) if allowed is None else max(allowed, key=lambda i: float(logprobs[i])))
        return new

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Counted:
    def __init__(self, server: StandIn, path: str, body: Any, headers: Mapping[str, str]) -> None:
        self._server = server
        with server._lock:
            server.requests.append((path, body, headers))

    def __enter__(self) -> None:
        with self._server._lock:
            self._server._at_once += 1
            self._server.most_at_once = max(self._server.most_at_once, self._server._at_once)

    def __exit__(self, *error: object) -> None:
        with self._server._lock:
            self._server._at_once -= 1


class VllmStandIn(StandIn):
    """vLLM 0.32: `/v1/completions` of `vllm/entrypoints/openai/completion/{protocol,serving}.py`."""

    def endpoints(self) -> dict[str, Callable[[Any], Answer]]:
        return {"/v1/completions": self._complete}

    def _complete(self, body: Any) -> Answer:
        if body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist."
            return 404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}
        choices = [self._choice(i, ids, body) for i, ids in enumerate(body["prompt"])]
        return {"object": "text_completion", "model": body["model"], "choices": choices[::-1]}

    def _choice(self, index: int, ids: list[int], body: Any) -> JsonObject:
        logprobs = self.logprobs(body["model"], ids)
        stop = {*body.get("stop_token_ids", ())}
        tokens = self.greedy(body["model"], ids, body["max_tokens"], stop, body.get("allowed_token_ids"))
        choice: JsonObject = {"index": index, "text": "", "finish_reason": "length", "logprobs": None}
        if body.get("logprobs") is not None:
            assert body["return_tokens_as_token_ids"]
            shown = {*body["logprob_token_ids"], tokens[0]}
            top = {f"token_id:{token}": max(float(logprobs[-1, token]), -9999.0) for token in shown}
            choice["logprobs"] = {"top_logprobs": [top], "tokens": [f"token_id:{tokens[0]}"]}
        if body.get("prompt_logprobs") is not None:
            of_prompt = [
                {str(token): {"logprob": float(row[token]), "rank": 1, "decoded_token": "x"}}
                for row, token in zip(logprobs[:-1], ids[1:], strict=True)
            ]
            choice["prompt_logprobs"] = [None, *of_prompt]
        if body.get("return_token_ids"):
            choice["token_ids"] = tokens
        return choice


class SglangStandIn(StandIn):
    """SGLang: `/v1/score` and `/generate` of `sglang/srt/managers/{tokenizer_manager_score_mixin,io_struct}.py`."""

    def __init__(
        self,
        models: Mapping[str, Any],
        answers: Mapping[str, Callable[[Any], Answer]] | None = None,
        trims_stop: bool = False,
        settings: JsonObject | None = None,
    ) -> None:
        self.trims_stop = trims_stop
        self.settings = {"enable_mis": False, "version": "0.5.9"} | (settings or {})
        super().__init__(models, answers)

    def endpoints(self) -> dict[str, Callable[[Any], Answer]]:
        return {"/v1/score": self._score, "/generate": self._generate, "/server_info": lambda _: self.settings}

    def _score(self, body: Any) -> Answer:
        assert not body["apply_softmax"]
        rows = [self.logprobs(self.backbone, body["query"] + item)[-1] for item in body["items"]]
        scores = [[math.exp(float(row[label])) for label in body["label_token_ids"]] for row in rows]
        return {"object": "scoring", "scores": scores, "model": body["model"], "usage": None}

    def _generate(self, body: Any) -> Answer:
        if body.get("lora_path", self.backbone) not in self.models:
            return 400, {"error": {"message": f"LoRA adapter {body['lora_path']!r} has never been loaded."}}
        return [self._continued(ids, body) for ids in body["input_ids"]]

    def _continued(self, ids: list[int], body: Any) -> JsonObject:
        name, sampling, start = (
            body.get("lora_path", self.backbone),
            body["sampling_params"],
            body.get("logprob_start_len", -1),
        )
        logprobs = self.logprobs(name, ids)
        stop = {*sampling.get("stop_token_ids", ())}
        tokens = self.greedy(name, ids, sampling["max_new_tokens"], stop, None)
        meta: JsonObject = {"finish_reason": {"type": "length", "length": len(tokens)}}
        if tokens[-1] in stop:
            meta["finish_reason"] = {"type": "stop", "matched": tokens[-1]}
            tokens = tokens[:-1] if self.trims_stop else tokens
        if start >= 0:
            rows = zip(logprobs[start:-1], ids[start + 1 :], strict=True)
            after = [[float(row[token]), token, None] for row, token in rows]
            meta["input_token_logprobs"] = [[None, ids[start], None], *after]
        if wanted := body.get("token_ids_logprob"):
            meta["output_token_ids_logprobs"] = [[[float(logprobs[-1, token]), token, None] for token in wanted]]
        return {"text": "", "output_ids": tokens, "meta_info": meta}
