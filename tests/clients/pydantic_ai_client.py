"""pydantic-ai: agents whose answer is text, a call or JSON of a schema, by chats and by responses."""

import asyncio
import json
import os
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from told import CALLER, CALLING, QUESTION, SAMPLING, tell


class Person(BaseModel):
    """What is asked for."""

    name: Literal["Ann", "Bob"]


provider = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"])
name = os.environ["MODEL"]


async def conversation(model: Model) -> tuple[str, str, str]:
    """An answer, the next one, and the first as a stream."""
    agent = Agent(model, model_settings=SAMPLING)
    first = await agent.run(QUESTION)
    again = await agent.run("Why?", message_history=first.all_messages())
    async with agent.run_stream(QUESTION) as stream:
        streamed = await stream.get_output()
    return first.output, again.output, streamed


async def forms(caller: Model, plain: Model) -> tuple[str, str]:
    """The arguments of a call, and a name in JSON of a schema."""
    once = {**CALLING, "parallel_tool_calls": False}
    called = await Agent(caller, output_type=ToolOutput(Person), model_settings=once).run(QUESTION)
    structured = await Agent(plain, output_type=NativeOutput(Person), model_settings=CALLING).run(QUESTION)
    return json.dumps(called.output.model_dump()), structured.output.name


async def talk() -> None:
    chat, again, streamed = await conversation(OpenAIChatModel(name, provider=provider))
    called, structured = await forms(
        OpenAIChatModel(CALLER, provider=provider), OpenAIChatModel(name, provider=provider)
    )
    responded, continued, deltas = await conversation(OpenAIResponsesModel(name, provider=provider))
    acted, person = await forms(
        OpenAIResponsesModel(CALLER, provider=provider), OpenAIResponsesModel(name, provider=provider)
    )
    tell(
        client=f"pydantic-ai {version('pydantic-ai-slim')}",
        chat=chat,
        again=again,
        streamed=streamed,
        called=called,
        structured=structured,
        responded=responded,
        responded_streamed=[deltas, responded],
        continued=continued,
        responses_called=acted,
        responses_structured=person,
    )


asyncio.run(talk())
