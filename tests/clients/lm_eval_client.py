"""lm-evaluation-harness' local-completions: likelihoods of texts, and texts."""

import os
from importlib.metadata import version

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from told import QUESTION, tell

os.environ["OPENAI_API_KEY"] = os.environ["API_KEY"]
model = LocalCompletionsAPI(
    base_url=os.environ["BASE_URL"] + "/completions",
    tokenizer_backend="huggingface",
    tokenizer=os.environ["TOKENIZER"],
    model=os.environ["MODEL"],
    max_retries=1,
)


def asked(kind: str, *arguments: object) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


likely = model.loglikelihood([asked("loglikelihood", QUESTION, one) for one in (" High.", os.environ["LIKELIEST"])])
written = model.generate_until(
    [asked("generate_until", QUESTION, {"until": ["\n\n"], "max_gen_toks": int(os.environ["TOKENS"])})]
)
tell(client=f"lm-eval {version('lm-eval')}", likelihoods=likely, completed=written)
