"""Errors of the /v1 API in the form that OpenAI clients read."""

from collections.abc import Mapping, Sequence


class ApiError(Exception):
    """A refused request.

    `type` and `code` are for programs, `param` names the field at fault, `extra` is added to the error
    object. See https://platform.openai.com/docs/guides/error-codes.
    """

    status = 400
    type = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | self.extra}


class BadRequest(ApiError):
    """A field's value that can never work (400)."""


class Unsupported(ApiError):
    """A field that the chosen model, or this server, cannot act on (422)."""

    status = 422


class UnknownModel(ApiError):
    """Nothing that this caller may see has this name (404)."""

    status = 404

    def __init__(self, model: str, known: Sequence[str]) -> None:
        hint = f" Models you can use: {', '.join(known)}." if known else ""
        super().__init__(
            f"model {model!r} does not exist or you have no access to it.{hint} See GET /v1/models.",
            code="model_not_found",
            param="model",
        )


class NotApproved(UnknownModel):
    """A version, or a family of nothing but versions, that awaits its approval or was refused it.

    Without a fallback it reads as any other unknown model; a fallback's answer names the real reason.
    """

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(model, known)
        self.reason = f"{model!r} is not approved and active."


class NotActive(ApiError):
    """A version that takes no new requests (409)."""

    status = 409


class Incompatible(ApiError):
    """An adapter of another base model (422)."""

    status = 422

    def __init__(self, adapter_id: str, needs: str, loaded: str, compatible: Sequence[str]) -> None:
        instead = ", ".join(compatible) if compatible else "none is active in your domains"
        super().__init__(
            f"adapter {adapter_id!r} was trained on base model {needs}, this server runs {loaded}. "
            f"Compatible adapters: {instead}.",
            code="incompatible_base_model",
            param="model",
            extra={"compatible_adapters": list(compatible)},
        )


class CannotServe(ApiError):
    """The adapter failed its checks: it is not answered with the base model (422)."""

    status = 422


class NotFound(ApiError):
    """What the request names is not here (404)."""

    status = 404


class Conflict(ApiError):
    """What the request wants does not go with what is there (409)."""

    status = 409


class TooLarge(ApiError):
    """More bytes than are taken (413)."""

    status = 413


class Busy(ApiError):
    """Try again later (503 with Retry-After)."""

    status = 503
    type = "server_error"


class RateLimited(ApiError):
    """More than a caller or a domain may take (429 with Retry-After)."""

    status = 429
    type = "requests"


class ServerFault(ApiError):
    """A fault of ours (500)."""

    status = 500
    type = "server_error"
