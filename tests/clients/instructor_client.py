"""instructor: plain answers pass; its default mode asks for tools and gets their refusal."""

import os
from importlib.metadata import version

import instructor
import openai
from pydantic import BaseModel
from told import QUESTION, SAMPLING, tell


class Person(BaseModel):
    """What is asked for."""

    name: str


plain = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
client = instructor.from_openai(plain)
asked = {"model": os.environ["MODEL"], "messages": [{"role": "user", "content": QUESTION}], **SAMPLING}
first = client.chat.completions.create(response_model=None, **asked)
try:
    client.chat.completions.create(response_model=Person, max_retries=0, **asked)
    refused = ""
except Exception as error:  # instructor wraps the client's own in its retries'
    refused = str(error)
written = ""
if os.environ.get("WRITES_JSON"):
    in_text = instructor.from_openai(plain, mode=instructor.Mode.MD_JSON)
    written = in_text.chat.completions.create(response_model=Person, max_retries=0, **asked).name
tell(
    client=f"instructor {version('instructor')}, openai {openai.__version__}",
    chat=first.choices[0].message.content,
    refused=refused,
    written=written,
)
