"""The official Python client: conversations, streams, candidates, vectors, functions, forms, responses, files, batches."""

import json
import os
import time
from typing import Literal

import openai
from pydantic import BaseModel
from told import CALLER, CALLING, PERSON, QUESTION, SAMPLING, tell


class Person(BaseModel):
    """What is asked for."""

    name: Literal["Ann", "Bob"]


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

greet = {"name": "greet", "description": "Greets somebody.", "parameters": PERSON, "strict": True}
tools = [{"type": "function", "function": greet}]
once = {"tool_choice": "required", "parallel_tool_calls": False}
answer = client.chat.completions.create(model=CALLER, messages=messages, tools=tools, **once, **CALLING)
call = answer.choices[0].message.tool_calls[0]
told = [*messages, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Hello."}]
after = client.chat.completions.create(model=CALLER, messages=told, tools=tools, tool_choice="none", **SAMPLING)
parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Person, **CALLING)

sampling = {"temperature": 0, "max_output_tokens": SAMPLING["max_tokens"]}
calling = {"temperature": 0, "max_output_tokens": CALLING["max_tokens"]}
response = client.responses.create(model=model, input=QUESTION, **sampling)
continued = client.responses.create(model=model, input="Why?", previous_response_id=response.id, **sampling)
with client.responses.stream(model=model, input=QUESTION, **sampling) as stream:
    events = list(stream)
deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
final = events[-1].response
functions = [{"type": "function", **greet}]
acted = client.responses.create(model=CALLER, input=QUESTION, tools=functions, **once, **calling)
[action] = [item for item in acted.output if item.type == "function_call"]
result = {"type": "function_call_output", "call_id": action.call_id, "output": "Hello."}
went_on = client.responses.create(
    model=CALLER, input=[result], previous_response_id=acted.id, tools=functions, tool_choice="none", **sampling
)
person = client.responses.parse(model=model, input=QUESTION, text_format=Person, **calling)
read = client.responses.retrieve(response.id)
client.responses.delete(response.id)
try:
    client.responses.retrieve(response.id)
    gone = ""
except openai.NotFoundError as error:
    gone = error.code
line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
line |= {"body": {"model": model, "messages": messages, **SAMPLING}}
refused = line | {"custom_id": "b", "body": line["body"] | {"model": "unknown"}}
lines = "".join(json.dumps(one) + "\n" for one in (line, refused)).encode()
file = client.files.create(file=("in.jsonl", lines), purpose="batch")
kept = client.files.content(file.id).read() == lines
window = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
batch = client.batches.create(input_file_id=file.id, metadata={"run": "7"}, **window)
until = time.monotonic() + 60
while batch.status not in {"completed", "failed", "expired", "cancelled"} and time.monotonic() < until:
    time.sleep(0.2)
    batch = client.batches.retrieve(batch.id)
output, errors = (json.loads(client.files.content(one).text) for one in (batch.output_file_id, batch.error_file_id))
try:
    client.batches.cancel(batch.id)
    too_late = ""
except openai.ConflictError as error:
    too_late = error.code
files = [file.id, batch.output_file_id, batch.error_file_id]
listed = {one.id for one in client.files.list(limit=1)}
deleted = [client.files.delete(one).deleted for one in files]
try:
    client.files.retrieve(file.id)
    file_gone = ""
except openai.NotFoundError as error:
    file_gone = error.code
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
    called=call.function.arguments,
    after=bool(after.choices[0].message.content),
    structured=parsed.choices[0].message.parsed.name,
    responded=response.output_text,
    responded_streamed=[deltas, final.output_text],
    continued=continued.output_text,
    responses_called=action.arguments,
    went_on=bool(went_on.output_text),
    responses_structured=person.output_parsed.name,
    read_again=read.output_text == response.output_text,
    gone=gone,
    batch=[batch.status, batch.metadata, batch.request_counts.completed, batch.request_counts.failed],
    batched=output["response"]["body"]["choices"][0]["message"]["content"],
    refused_line=[errors["custom_id"], errors["response"]["body"]["error"]["code"]],
    batch_listed=batch.id in {one.id for one in client.batches.list(limit=1)},
    too_late=too_late,
    files=[kept, set(files) <= listed, all(deleted), file_gone],
)
