// The Vercel AI SDK with its provider for OpenAI-compatible servers.
import { API_KEY, BASE_URL, MODEL, QUESTION, SENTENCES, load, tell, tokens, version } from "./told.mjs";

const { generateText, streamText, embedMany } = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const provider = createOpenAICompatible({ name: "lorafleet", baseURL: BASE_URL, apiKey: API_KEY, includeUsage: true });
const asked = { model: provider(MODEL), temperature: 0, maxOutputTokens: tokens, maxRetries: 0 };
const messages = [{ role: "user", content: QUESTION }];
const first = await generateText({ ...asked, messages });
const again = await generateText({
  ...asked,
  messages: [...messages, { role: "assistant", content: first.text }, { role: "user", content: "Why?" }],
});
let streamed = "";
for await (const part of streamText({ ...asked, messages }).textStream) streamed += part;
const vectors = await embedMany({
  model: provider.embeddingModel(SENTENCES),
  values: ["the tide", "the harbour"],
  maxRetries: 0,
});
tell({
  client: `ai ${version("ai")}, @ai-sdk/openai-compatible ${version("@ai-sdk/openai-compatible")}`,
  chat: first.text,
  again: again.text,
  streamed,
  vectors: vectors.embeddings.map((one) => one.length),
});
