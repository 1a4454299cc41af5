"""pydantic-ai: an agent without tools whose answer is text."""

import asyncio
import os
from importlib.metadata import version

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from told import QUESTION, SAMPLING, tell

provider = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"])
agent = Agent(OpenAIChatModel(os.environ["MODEL"], provider=provider), model_settings=SAMPLING)


async def talk() -> None:
    first = await agent.run(QUESTION)
    again = await agent.run("Why?", message_history=first.all_messages())
    async with agent.run_stream(QUESTION) as stream:
        streamed = await stream.get_output()
    tell(
        client=f"pydantic-ai {version('pydantic-ai-slim')}",
        chat=first.output,
        again=again.output,
        streamed=streamed,
    )


asyncio.run(talk())
