// One prompt to several models: each answer streams into a column of its own.
"use strict";
const form = document.getElementById("prompt-form");
const answers = document.getElementById("answers");
const mark = document.querySelector("meta[name=form-token]").content;
const post = (path, body) => fetch(path, {
  method: "POST", redirect: "manual", // to the sign-in, once the session has ended: that is no success
  headers: { "Content-Type": "application/json", "X-Form-Token": mark }, body: JSON.stringify(body),
});

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) if (part.startsWith("data: {")) yield JSON.parse(part.slice("data: ".length));
  }
}

const provenance = (served) => {
  if (!served) return "";
  const routed = served.routed ? ` · routed: ${JSON.stringify(served.routed)}` : "";
  return `${served.adapter_id ?? served.base_model}${served.artifact_sha256 ? ` · ${served.artifact_sha256.slice(0, 16)}` : ""}${routed}`;
};

async function answer(model, sent, column) {
  const text = column.querySelector(".text");
  const response = await post("/console/playground/answer", { ...sent, model });
  if (!response.ok) {
    text.textContent = response.type === "opaqueredirect" ? "your session has ended: sign in again" : `refused (${response.status})`;
    return;
  }
  for await (const chunk of events(response)) {
    if (chunk.fault) {
      text.append(Object.assign(document.createElement("strong"), { textContent: chunk.fault }));
      return;
    }
    if (chunk.id) column.dataset.generation = chunk.id;
    if (chunk.lorafleet) column.querySelector(".provenance").textContent = provenance(chunk.lorafleet);
    const choice = chunk.choices?.[0];
    const tokens = choice?.logprobs?.content;
    if (tokens?.length) {
      for (const token of tokens) {
        text.append(Object.assign(document.createElement("span"), { textContent: token.token, title: `${(100 * Math.exp(token.logprob)).toFixed(1)} %` }));
      }
    } else if (choice?.delta?.content) {
      text.append(choice.delta.content);
    }
  }
  column.querySelector("footer").hidden = !column.dataset.generation;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  const sent = {
    prompt: fields.get("prompt"), system: fields.get("system"),
    max_tokens: Number(fields.get("max_tokens")), temperature: Number(fields.get("temperature")),
  };
  const models = fields.getAll("model").slice(0, Number(answers.dataset.most));
  answers.replaceChildren();
  await Promise.all(models.map((model) => {
    const column = document.getElementById("answer").content.firstElementChild.cloneNode(true);
    column.querySelector("h2").textContent = model;
    answers.append(column);
    return answer(model, sent, column);
  }));
});

answers.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const column = button.closest(".answer");
  const own = column.dataset.generation;
  const others = [...answers.querySelectorAll(".answer")].map((one) => one.dataset.generation).filter((id) => id && id !== own);
  const bodies = "prefer" in button.dataset
    ? others.map((other) => ({ generation_id: own, preferred_over: other }))
    : [{ generation_id: own, rating: Number(button.dataset.rating) }];
  const results = await Promise.all(bodies.map((body) => post("/console/playground/feedback", body)));
  column.querySelector("[role=status]").textContent = results.every((one) => one.ok) ? "recorded" : "not recorded";
});
