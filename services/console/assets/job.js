// A job's course as it happens: the trainer's own server-sent events, plotted.
"use strict";
const element = document.getElementById("course");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const names = ["loss", "learning_rate", "gradient_norm", "tokens_per_second"];
const axis = { stroke: colour("--text"), grid: { stroke: colour("--edge"), width: 1 }, ticks: { stroke: colour("--edge") } };
const short = (_plot, values) => values.map((value) => (value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : String(value)));
const lines = (name) => [{ label: "step" }, { label: name.replaceAll("_", " "), stroke: colour("--mark"), width: 2 },
  ...(name === "loss" ? [{ label: "validation", stroke: colour("--bad"), width: 2, spanGaps: true, points: { show: true } }] : [])];
// A version's page has the plots alone.
const show = (id, text) => {
  const place = document.getElementById(id);
  if (place) place.textContent = text;
};
const plots = new Map();
for (const figure of element.querySelectorAll("figure")) {
  const name = figure.dataset.plot;
  const empty = lines(name).map(() => []);
  const options = { width: figure.clientWidth || 320, height: 200, scales: { x: { time: false } }, axes: [axis, { ...axis, size: 64, values: short }], series: lines(name) };
  plots.set(name, { data: empty, plot: new uPlot(options, empty, figure) });
}
let due = false;
const draw = () => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    for (const { data, plot } of plots.values()) plot.setData(data);
  });
};
const source = new EventSource(element.dataset.course);
source.addEventListener("step", (event) => {
  const step = JSON.parse(event.data);
  for (const name of names) {
    const { data } = plots.get(name);
    data[0].push(step.step);
    data[1].push(step[name] ?? null);
    if (data[2]) data[2].push(null);
  }
  show("step", step.step);
  show("loss", Number(step.loss).toFixed(4));
  draw();
});
source.addEventListener("validation", (event) => {
  const validation = JSON.parse(event.data);
  const { data } = plots.get("loss");
  const at = data[0].lastIndexOf(validation.step);
  if (at >= 0) data[2][at] = validation.loss;
  draw();
});
source.addEventListener("state", (event) => {
  const state = JSON.parse(event.data);
  show("state", state.state);
  const tag = document.getElementById("state");
  if (tag) tag.className = `tag ${state.state}`;
  if (state.final) source.close();
});
addEventListener("resize", () => {
  for (const figure of element.querySelectorAll("figure")) plots.get(figure.dataset.plot).plot.setSize({ width: figure.clientWidth, height: 200 });
});
