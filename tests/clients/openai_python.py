"""The official Python client: a conversation that goes on, a stream, candidates, lists of prompts, vectors."""

import os

import openai
from told import QUESTION, SAMPLING, tell

client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
model = os.environ["MODEL"]
messages = [{"role": "user", "content": QUESTION}]
first = client.chat.completions.create(model=model, messages=messages, **SAMPLING)
again = client.chat.completions.create(
    model=model, messages=[*messages, first.choices[0].message, {"role": "user", "content": "Why?"}], **SAMPLING
)
streamed, usage = "", None
for chunk in client.chat.completions.create(
    model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **SAMPLING
):
    usage = chunk.usage or usage
    streamed += "".join(choice.delta.content or "" for choice in chunk.choices)
several = client.chat.completions.create(
    model=model, messages=messages, n=2, logprobs=True, top_logprobs=3, seed=1, **SAMPLING
)
completed = client.completions.create(model=model, prompt=["The tide", "The harbour"], **SAMPLING)
vectors = client.embeddings.create(
    model=os.environ["SENTENCES"], input=["the tide", "the harbour"], dimensions=int(os.environ["DIMENSIONS"])
)
try:
    client.responses.create(model=model, input=QUESTION)
    refused = ""
except openai.NotFoundError as error:
    refused = str(error)
tell(
    client=f"openai {openai.__version__} (Python)",
    chat=first.choices[0].message.content,
    again=again.choices[0].message.content,
    streamed=streamed,
    same_usage=usage == first.usage,
    candidates=[len(one.top_logprobs) for one in several.choices[1].logprobs.content],
    completed=[one.index for one in completed.choices],
    vectors=[len(one.embedding) for one in vectors.data],
    embedded_tokens=vectors.usage.total_tokens,
    retrieved=client.models.retrieve(model).id,
    refused=refused,
)
