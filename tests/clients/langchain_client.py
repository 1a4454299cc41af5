"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

import os
from importlib.metadata import version

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from told import QUESTION, SAMPLING, tell

at = {"base_url": os.environ["BASE_URL"], "api_key": os.environ["API_KEY"]}
model = ChatOpenAI(model=os.environ["MODEL"], use_responses_api=False, **SAMPLING, **at)
turns = [HumanMessage(QUESTION)]
first = model.invoke(turns)
again = model.invoke([SystemMessage("Be brief."), *turns, first, HumanMessage("Why?")])
streamed = "".join(str(chunk.content) for chunk in model.stream(turns))
vectors = OpenAIEmbeddings(model=os.environ["SENTENCES"], check_embedding_ctx_length=False, **at).embed_documents(
    ["the tide", "the harbour"]
)
tell(
    client=f"langchain-openai {version('langchain-openai')}",
    chat=first.content,
    again=again.content,
    streamed=streamed,
    vectors=[len(one) for one in vectors],
)
