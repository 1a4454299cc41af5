"""Log-probabilities of an answer's tokens, as chats and responses list them."""

from collections.abc import Sequence

from services.inference.engine_thread import Token
from services.inference.token_bytes import TokenBytes

Object = dict[str, object]


class TokenLogprobs:
    """Of one answer. top: candidates listed for each place."""

    def __init__(self, tokens: TokenBytes, top: int) -> None:
        self._tokens = tokens
        self._top = top
        self._first = True

    def of(self, tokens: Sequence[Token]) -> list[Object]:
        """Of the tokens that come next."""
        listed = []
        for token in tokens:
            likeliest = [self._one(one, logprob) for one, logprob in token.alternatives[: self._top]]
            listed.append({**self._one(token.id, token.logprob), "top_logprobs": likeliest})
            self._first = False
        return listed

    def _one(self, token_id: int, logprob: float) -> Object:
        found = self._tokens.of(token_id, first=self._first)
        shown = self._tokens.shown(token_id, first=self._first)
        return {"token": shown, "logprob": logprob, "bytes": None if found is None else list(found)}
