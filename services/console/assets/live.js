// Rows of events as they come. The browser connects again by itself and names the last row that it has.
"use strict";
const MOST = 500;
const body = document.getElementById("events");
const link = document.getElementById("link");
const pause = document.getElementById("pause");
const waiting = [];
const source = new EventSource(body.dataset.source);
const insert = (html) => {
  const holder = document.createElement("tbody");
  holder.innerHTML = html; // made by our own template, which escapes all it shows
  const row = holder.firstElementChild;
  if (!row || document.getElementById(row.id)) return;
  row.classList.add("new");
  body.prepend(row);
  while (body.children.length > MOST) body.lastElementChild.remove();
};
const paused = () => pause.getAttribute("aria-pressed") === "true";
source.addEventListener("row", (event) => {
  if (!paused()) insert(event.data);
  else if (waiting.push(event.data) > MOST) waiting.shift();
});
source.addEventListener("missed", (event) => { link.textContent = `${event.data} events came too fast to be shown`; });
source.onopen = () => { link.textContent = "connected"; };
source.onerror = () => { link.textContent = source.readyState === EventSource.CLOSED ? "ended: reload the page" : "connecting again"; };
pause.addEventListener("click", () => {
  pause.setAttribute("aria-pressed", String(!paused()));
  pause.textContent = paused() ? "Resume" : "Pause";
  if (!paused()) waiting.splice(0).forEach(insert);
});
