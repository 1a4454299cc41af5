"""POST /v1/embeddings: vectors of texts."""

import base64

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from fleet_kit.auth import Caller
from fleet_kit.http_limits import body_rule
from services.inference.chosen import Chosen
from services.inference.errors import BadRequest, NotFound, UnknownModel
from services.inference.http.access import LimitedCaller, Parts, answered_by
from services.inference.http.elsewhere import elsewhere
from services.inference.http.schemas import EmbeddingRequest
from services.inference.parts import InferenceParts
from services.inference.resolution import AUTO
from services.inference.router_client import NO_QUERY

router = APIRouter()
_PROMPTS = body_rule(4 << 20)
"""Batches of texts of the longest contexts."""


@router.post("/v1/embeddings", openapi_extra=_PROMPTS)
async def embeddings(body: EmbeddingRequest, request: Request, caller: LimitedCaller, parts: Parts) -> Response:
    """Vectors of length 1: of the sentence model, or of the base model with the adapters that `model` names."""
    embedder, extra = parts.embedder, {}
    if embedder is not None and body.model == embedder.name:
        parts.gate.require_open()
        texts = [one for one in body.inputs if isinstance(one, str)]
        if len(texts) < len(body.inputs):
            raise BadRequest(
                f"{embedder.name!r} reads text, not token ids: send text (LangChain's OpenAIEmbeddings: "
                "check_embedding_ctx_length=False).",
                code="invalid_value",
                param="input",
            )
        counted = parts.hosting.all[0].vocabulary  # the sentence model's encoder does not give its token counts
        domain = ""
        vectors = await embedder.embed(texts)
    else:
        chosen = await _embedding_model(body, caller, parts)
        if (other := await elsewhere(request, chosen, parts)) is not None:
            return other
        answered_by(request, chosen)
        domain = chosen.domain
        parts.generator.ledger.admit(caller.subject, domain)
        vectors = await parts.generator.embed(chosen, body.inputs)
        extra = {"lorafleet": chosen.provenance.model_dump()}
        counted = chosen.hosted.vocabulary
    if body.dimensions is not None:
        vectors = _shortened(vectors, body.dimensions)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if body.encoding_format == "base64"
            else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(counted.count(one) for one in body.inputs)
    parts.generator.ledger.charge(caller.subject, domain, (1, tokens, 0))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": body.model, "data": data, "usage": usage, **extra})


def _shortened(vectors: npt.NDArray[np.float32], dimensions: int) -> npt.NDArray[np.float32]:
    """The first numbers of each vector, [texts, dimensions], of length 1 again."""
    if dimensions > vectors.shape[1]:
        raise BadRequest(
            f"dimensions is {dimensions}, this model's vectors have {vectors.shape[1]}.",
            code="invalid_value",
            param="dimensions",
        )
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.maximum(lengths, 1e-12), dtype=np.float32)


async def _embedding_model(body: EmbeddingRequest, caller: Caller, parts: InferenceParts) -> Chosen:
    if body.model == AUTO:
        raise BadRequest(
            "embeddings need a model by name: vectors of several are not comparable.",
            code="invalid_value",
            param="model",
        )
    try:
        chosen = await parts.generator.choose(body.model, NO_QUERY, caller)
    except UnknownModel as error:
        if parts.embedder is None:
            raise
        raise NotFound(
            f"{error.message} For sentence vectors: {parts.embedder.name!r}.", code=error.code, param=error.param
        ) from None
    vocabulary, most = chosen.hosted.vocabulary, chosen.hosted.limits.max_prompt_tokens
    counted = [vocabulary.ids_of(one) for one in body.inputs]
    too_long = sum(len(ids) > most for ids in counted)
    if too_long:
        raise BadRequest(
            f"{too_long} texts have more than {most} tokens.", code="context_length_exceeded", param="input"
        )
    for one, ids in zip(body.inputs, counted, strict=True):
        vocabulary.check_ids(ids, "input")
        if not isinstance(one, str):
            vocabulary.check_own(one, "input")
        elif not ids:
            raise BadRequest("a text has no tokens.", code="invalid_value", param="input")
    return chosen
