// The official Node client: a conversation that goes on, streams, vectors, functions, forms, responses.
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

const greet = { name: "greet", description: "Greets somebody.", parameters: PERSON, strict: true };
const called = await client.chat.completions.create({
  ...sampling,
  model: CALLER,
  max_tokens: callTokens,
  messages,
  tools: [{ type: "function", function: greet }],
  tool_choice: { type: "function", function: { name: "greet" } },
  parallel_tool_calls: false,
});
const structured = await client.chat.completions.create({
  ...sampling,
  max_tokens: callTokens,
  messages,
  response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema: PERSON } },
});

const asked = { model: MODEL, temperature: 0, max_output_tokens: tokens };
const response = await client.responses.create({ ...asked, input: QUESTION });
const continued = await client.responses.create({ ...asked, input: "Why?", previous_response_id: response.id });
const events = client.responses.stream({ ...asked, input: QUESTION });
let deltas = "";
for await (const event of events) if (event.type === "response.output_text.delta") deltas += event.delta;
const final = await events.finalResponse();
const acted = await client.responses.create({
  ...asked,
  model: CALLER,
  max_output_tokens: callTokens,
  input: QUESTION,
  tools: [{ type: "function", ...greet }],
  tool_choice: "required",
  parallel_tool_calls: false,
});
const person = await client.responses.create({
  ...asked,
  max_output_tokens: callTokens,
  input: QUESTION,
  text: { format: { type: "json_schema", name: "person", strict: true, schema: PERSON } },
});
tell({
  client: `openai ${version("openai")} (Node)`,
  chat: first.choices[0].message.content,
  again: again.choices[0].message.content,
  streamed,
  vectors: vectors.data.map((one) => one.embedding.length),
  called: called.choices[0].message.tool_calls[0].function.arguments,
  structured: JSON.parse(structured.choices[0].message.content).name,
  responded: response.output_text,
  responded_streamed: [deltas, final.output_text],
  continued: continued.output_text,
  responses_called: acted.output.find((item) => item.type === "function_call").arguments,
  responses_structured: JSON.parse(person.output_text).name,
});
