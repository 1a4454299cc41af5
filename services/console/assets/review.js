// Keys of the review page: a, r and e decide, j and k move over the samples, b asks the base model. Not while something is being typed.
"use strict";
let current = 0;
const buttons = { a: "approve", r: "reject", e: "evaluate" };
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = document.getElementById(buttons[event.key]);
  if (button) {
    event.preventDefault();
    button.focus(); // a decision takes a second key, Enter: nobody approves by a slip
    return;
  }
  if (event.key === "b") {
    const ask = document.querySelector(`#sample-${current} .base-answer button`);
    if (ask) ask.click();
    return;
  }
  if (event.key !== "j" && event.key !== "k") return;
  const next = document.getElementById(`sample-${Math.max(1, current + (event.key === "j" ? 1 : -1))}`);
  if (next) {
    event.preventDefault();
    current = Number(next.id.slice("sample-".length));
    next.focus();
  }
});
