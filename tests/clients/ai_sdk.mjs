// The Vercel AI SDK with its provider for OpenAI-compatible servers, and by responses with its provider for OpenAI.
import {
  API_KEY,
  BASE_URL,
  CALLER,
  MODEL,
  PERSON,
  QUESTION,
  SENTENCES,
  callTokens,
  load,
  tell,
  tokens,
  version,
} from "./told.mjs";

const { Output, embedMany, generateText, jsonSchema, streamText, tool } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { createOpenAI } = await load("@ai-sdk/openai");
const compatible = createOpenAICompatible({
  name: "lorafleet",
  baseURL: BASE_URL,
  apiKey: API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const providerOptions = { lorafleet: { parallel_tool_calls: false }, openai: { parallelToolCalls: false } };
const messages = [{ role: "user", content: QUESTION }];
const why = { role: "user", content: "Why?" };
const greet = tool({ description: "Greets somebody.", inputSchema: jsonSchema(PERSON), execute: () => "Hello." });

async function all(plain, caller) {
  const asked = { model: plain, temperature: 0, maxOutputTokens: tokens, maxRetries: 0 };
  const forms = { ...asked, maxOutputTokens: callTokens, messages };
  const first = await generateText({ ...asked, messages });
  const again = await generateText({ ...asked, messages: [...messages, ...first.response.messages, why] });
  let streamed = "";
  for await (const part of streamText({ ...asked, messages }).textStream) streamed += part;
  const called = await generateText({ ...forms, model: caller, tools: { greet }, toolChoice: "required", providerOptions });
  const after = await generateText({
    ...forms,
    model: caller,
    messages: [...messages, ...called.response.messages],
    tools: { greet },
    toolChoice: "none",
  });
  const structured = await generateText({ ...forms, output: Output.object({ schema: jsonSchema(PERSON) }) });
  return { first, again, streamed, called, after, structured };
}

const chats = await all(compatible(MODEL), compatible(CALLER));
const responses = await all(openai.responses(MODEL), openai.responses(CALLER));
const vectors = await embedMany({
  model: compatible.embeddingModel(SENTENCES),
  values: ["the tide", "the harbour"],
  maxRetries: 0,
});
tell({
  client: `ai ${version("ai")}, ${["openai-compatible", "openai"].map((one) => `@ai-sdk/${one} ${version(`@ai-sdk/${one}`)}`).join(", ")}`,
  chat: chats.first.text,
  again: chats.again.text,
  streamed: chats.streamed,
  vectors: vectors.embeddings.map((one) => one.length),
  called: JSON.stringify(chats.called.toolCalls[0].input),
  after: Boolean(chats.after.text),
  structured: chats.structured.output.name,
  responded: responses.first.text,
  responded_streamed: [responses.streamed, responses.first.text],
  continued: responses.again.text,
  responses_called: JSON.stringify(responses.called.toolCalls[0].input),
  went_on: Boolean(responses.after.text),
  responses_structured: responses.structured.output.name,
});
