// The official Node client: a conversation that goes on, a stream, vectors.
import { API_KEY, BASE_URL, MODEL, QUESTION, SENTENCES, load, tell, tokens, version } from "./told.mjs";

const { default: OpenAI } = await load("openai");
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const sampling = { model: MODEL, temperature: 0, max_tokens: tokens };
const messages = [{ role: "user", content: QUESTION }];
const first = await client.chat.completions.create({ ...sampling, messages });
const again = await client.chat.completions.create({
  ...sampling,
  messages: [...messages, first.choices[0].message, { role: "user", content: "Why?" }],
});
let streamed = "";
const stream = await client.chat.completions.create({ ...sampling, messages, stream: true });
for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";
const vectors = await client.embeddings.create({ model: SENTENCES, input: ["the tide", "the harbour"] });
tell({
  client: `openai ${version("openai")} (Node)`,
  chat: first.choices[0].message.content,
  again: again.choices[0].message.content,
  streamed,
  vectors: vectors.data.map((one) => one.embedding.length),
});
