"""LiteLLM as a library: chat, stream, completion, vectors."""

import os
from importlib.metadata import version

import litellm
from told import QUESTION, SAMPLING, tell

at = {"api_base": os.environ["BASE_URL"], "api_key": os.environ["API_KEY"]}
model, sentences = os.environ["MODEL"], os.environ["SENTENCES"]
messages = [{"role": "user", "content": QUESTION}]
first = litellm.completion(model=f"openai/{model}", messages=messages, user="u", **SAMPLING, **at)
again = litellm.completion(
    model=f"openai/{model}",
    messages=[*messages, first.choices[0].message.model_dump(), {"role": "user", "content": "Why?"}],
    **SAMPLING,
    **at,
)
stream = litellm.completion(
    model=f"openai/{model}", messages=messages, stream=True, stream_options={"include_usage": True}, **SAMPLING, **at
)
streamed = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
completed = litellm.text_completion(
    model=f"text-completion-openai/{model}", prompt=["The tide", "The harbour"], **SAMPLING, **at
)
vectors = litellm.embedding(model=f"openai/{sentences}", input=["the tide", "the harbour"], **at)
tell(
    client=f"litellm {version('litellm')}",
    chat=first.choices[0].message.content,
    again=again.choices[0].message.content,
    streamed=streamed,
    completed=[one.index for one in completed.choices],
    vectors=[len(one["embedding"]) for one in vectors.data],
)
