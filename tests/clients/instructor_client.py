"""instructor: plain answers, and objects by calls, by JSON of a schema and by responses; refused by a model without tools."""

import json
import os
from importlib.metadata import version
from typing import Literal

import instructor
import openai
from pydantic import BaseModel, ConfigDict
from told import CALLER, CALLING, QUESTION, SAMPLING, tell


class Person(BaseModel):
    """What is asked for, and nothing more: a model may add to it for ever."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["Ann", "Bob"]


plain = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
client = instructor.from_openai(plain)
messages = [{"role": "user", "content": QUESTION}]
asked = {"model": os.environ["MODEL"], "messages": messages, **SAMPLING}
first = client.chat.completions.create(response_model=None, **asked)
try:
    client.chat.completions.create(response_model=Person, max_retries=0, **asked)
    refused = ""
except Exception as error:  # instructor wraps the client's own in its retries'
    refused = str(error)
called = client.chat.completions.create(
    response_model=Person, max_retries=0, model=CALLER, messages=messages, parallel_tool_calls=False, **CALLING
)
by_schema = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
structured = by_schema.chat.completions.create(
    response_model=Person, max_retries=0, model=os.environ["MODEL"], messages=messages, **CALLING
)
by_responses = instructor.from_openai(plain, mode=instructor.Mode.RESPONSES_TOOLS)
acted = by_responses.responses.create(
    response_model=Person,
    max_retries=0,
    model=CALLER,
    input=QUESTION,
    parallel_tool_calls=False,
    temperature=0,
    max_output_tokens=CALLING["max_tokens"],
)
written = ""
if os.environ.get("WRITES_JSON"):
    in_text = instructor.from_openai(plain, mode=instructor.Mode.MD_JSON)
    written = in_text.chat.completions.create(response_model=Person, max_retries=0, **asked).name
tell(
    client=f"instructor {version('instructor')}, openai {openai.__version__}",
    chat=first.choices[0].message.content,
    refused=refused,
    written=written,
    called=json.dumps(called.model_dump()),
    structured=structured.name,
    responses_called=json.dumps(acted.model_dump()),
)
