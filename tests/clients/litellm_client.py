"""LiteLLM as a library: chats, streams, completions, vectors, functions, forms, responses."""

import json
import os
from importlib.metadata import version

import litellm
from told import CALLER, CALLING, PERSON, QUESTION, SAMPLING, tell

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

greet = {"name": "greet", "description": "Greets somebody.", "parameters": PERSON}
called = litellm.completion(
    model=f"openai/{CALLER}",
    messages=messages,
    tools=[{"type": "function", "function": greet}],
    tool_choice="required",
    parallel_tool_calls=False,
    **CALLING,
    **at,
)
form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
structured = litellm.completion(model=f"openai/{model}", messages=messages, response_format=form, **CALLING, **at)

asked = {"temperature": 0, "max_output_tokens": SAMPLING["max_tokens"], **at}
response = litellm.responses(model=f"openai/{model}", input=QUESTION, **asked)
events = litellm.responses(model=f"openai/{model}", input=QUESTION, stream=True, **asked)
deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
continued = litellm.responses(model=f"openai/{model}", input="Why?", previous_response_id=response.id, **asked)
acted = litellm.responses(
    model=f"openai/{CALLER}",
    input=QUESTION,
    tools=[{"type": "function", **greet}],
    tool_choice="required",
    parallel_tool_calls=False,
    **asked | {"max_output_tokens": CALLING["max_tokens"]},
)
person = litellm.responses(
    model=f"openai/{model}",
    input=QUESTION,
    text={"format": {"type": "json_schema", "name": "person", "strict": True, "schema": PERSON}},
    **asked | {"max_output_tokens": CALLING["max_tokens"]},
)


def text_of(found: object) -> str:
    return "".join(part.text for item in found.output if item.type == "message" for part in item.content)


tell(
    client=f"litellm {version('litellm')}",
    chat=first.choices[0].message.content,
    again=again.choices[0].message.content,
    streamed=streamed,
    completed=[one.index for one in completed.choices],
    vectors=[len(one["embedding"]) for one in vectors.data],
    called=called.choices[0].message.tool_calls[0].function.arguments,
    structured=json.loads(structured.choices[0].message.content)["name"],
    responded=text_of(response),
    responded_streamed=[deltas, text_of(response)],
    continued=text_of(continued),
    responses_called=next(item.arguments for item in acted.output if item.type == "function_call"),
    responses_structured=json.loads(text_of(person))["name"],
)
