"""LangChain's ChatOpenAI, by chats and by responses, and OpenAIEmbeddings."""

import json
import os
from importlib.metadata import version
from typing import Literal

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
from told import CALLER, CALLING, QUESTION, SAMPLING, tell


class Person(BaseModel):
    """What is asked for."""

    name: Literal["Ann", "Bob"]


@tool
def greet(name: Literal["Ann", "Bob"]) -> str:
    """Greets somebody."""
    return f"Hello, {name}."


at = {"base_url": os.environ["BASE_URL"], "api_key": os.environ["API_KEY"]}
model = ChatOpenAI(model=os.environ["MODEL"], use_responses_api=False, **SAMPLING, **at)
turns = [HumanMessage(QUESTION)]
first = model.invoke(turns)
again = model.invoke([SystemMessage("Be brief."), *turns, first, HumanMessage("Why?")])
streamed = "".join(str(chunk.content) for chunk in model.stream(turns))
vectors = OpenAIEmbeddings(model=os.environ["SENTENCES"], check_embedding_ctx_length=False, **at).embed_documents(
    ["the tide", "the harbour"]
)


def acted(by_responses: bool) -> tuple[str, str, bool]:
    """A call's arguments, a name in a form, and whether the conversation goes on behind the call."""
    caller = ChatOpenAI(model=CALLER, use_responses_api=by_responses, **CALLING, **at)
    # Strict: without more arguments than the function has, which a model may add to for ever.
    once = {"tool_choice": "required", "parallel_tool_calls": False, "strict": True}
    asked = caller.bind_tools([greet], **once).invoke(turns)
    [call] = asked.tool_calls
    result = ToolMessage(greet.invoke(call["args"]), tool_call_id=call["id"])
    after = caller.bind_tools([greet], tool_choice="none").invoke([*turns, asked, result])
    plain = ChatOpenAI(model=os.environ["MODEL"], use_responses_api=by_responses, **CALLING, **at)
    person = plain.with_structured_output(Person, method="json_schema").invoke(turns)
    return json.dumps(call["args"]), person.name, bool(after.text)


called, structured, after = acted(by_responses=False)
responses_called, responses_structured, went_on = acted(by_responses=True)
responses = ChatOpenAI(model=os.environ["MODEL"], use_responses_api=True, **SAMPLING, **at)
response = responses.invoke(turns)
continued = responses.invoke([*turns, response, HumanMessage("Why?")])
deltas = "".join(chunk.text for chunk in responses.stream(turns))
tell(
    client=f"langchain-openai {version('langchain-openai')}",
    chat=first.content,
    again=again.content,
    streamed=streamed,
    vectors=[len(one) for one in vectors],
    called=called,
    structured=structured,
    after=after,
    responded=response.text,
    responded_streamed=[deltas, response.text],
    continued=continued.text,
    responses_called=responses_called,
    responses_structured=responses_structured,
    went_on=went_on,
)
