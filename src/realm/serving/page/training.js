// The tab "Training": the curves of a run, live.

import { api } from "./api.js";
import { Chart } from "./chart.js";
import { byId, el, errorNotice, notice, say } from "./dom.js";
import { count, counted } from "./format.js";
import { MAIN, others, seriesFor } from "./measures.js";
import { address, go, note } from "./route.js";

const POLL_MS = { running: 2000, stopped: 10000 };
let timer = 0;
let visit = 0;
let held = null;
let said = "";

function noRuns() {
  return notice(
    "There are no runs to look at",
    el(
      "p",
      {},
      "Start the server with ",
      el("code", {}, "realm serve --runs FOLDER"),
      ", where FOLDER holds what ",
      el("code", {}, "realm pretrain"),
      " or ",
      el("code", {}, "realm finetune"),
      " writes. Curves grow here while a run trains.",
    ),
  );
}

function chooser(runs, name) {
  const options = runs.map((run) =>
    el("option", { value: run.name, selected: run.name === name }, run.name),
  );
  return el(
    "div",
    { class: "choosing" },
    el("label", { class: "label", for: "run" }, "Run"),
    el(
      "select",
      { id: "run", onchange: (event) => go(address("training", { run: event.target.value })) },
      ...options,
    ),
    el("p", { class: "run-state", id: "run-state" }),
  );
}

/** Tell a screen reader of another run, or another state of it; not of each step. */
function sayState({ name, stage, state }) {
  const words = `${name}: ${stage}, ${state}`;
  if (words !== said) say("training-said", words);
  said = words;
}

function tellState({ stage, state, step, num_steps: numSteps, refreshes }) {
  const share = numSteps ? Math.min(1, step / numSteps) : 0;
  const words = [
    el("span", { class: `state ${state}` }, state),
    el("span", {}, stage ?? ""),
    el("span", {}, `step ${count(step)}${numSteps ? ` of ${count(numSteps)}` : ""}`),
    refreshes.length ? el("span", {}, counted(refreshes.length, "refresh", "refreshes")) : null,
    numSteps && state === "running"
      ? el("progress", { max: 1, value: share, "aria-label": "Steps done" })
      : null,
  ];
  byId("run-state").replaceChildren(...words.filter(Boolean));
}

function moveAll(step) {
  for (const chart of held.charts) chart.setCursor(step);
}

function layOut(curves) {
  const names = Object.keys(curves.series);
  const main = MAIN.map((measure) => ({ measure, chart: makeChart(measure, names) }));
  const rest = others(names).map((measure) => makeChart(measure, names));
  const more = el(
    "details",
    { class: "more" },
    el("summary", {}, `More curves (${rest.length})`),
    el("div", { class: "charts small" }, ...rest.map((chart) => chart.element)),
  );
  more.addEventListener("toggle", () => rest.forEach((chart) => chart.draw()));
  byId("curves").replaceChildren(
    el("div", { class: "charts" }, ...main.map(({ chart }) => chart?.element).filter(Boolean)),
    absent(main.filter(({ measure, chart }) => !chart && measure.absent)),
    rest.length ? more : "",
  );
  held.charts = [...main.map(({ chart }) => chart).filter(Boolean), ...rest];
  held.names = names.join();
}

/** Say why a run lacks some of the main curves. */
function absent(missing) {
  if (!missing.length) return "";
  return el(
    "dl",
    { class: "absent" },
    ...missing.flatMap(({ measure }) => [
      el("dt", {}, measure.title),
      el("dd", { class: "quiet" }, measure.absent),
    ]),
  );
}

function makeChart(measure, names) {
  const lines = seriesFor(measure, names);
  return lines.length ? new Chart(measure, lines, moveAll) : null;
}

function nothingHeld(charts = [], names = null) {
  return { series: {}, refreshes: [], step: -1, charts, names };
}

/** Add what is new to what is held. */
function take(curves) {
  for (const [name, points] of Object.entries(curves.series)) {
    const before = held.series[name] ?? [];
    const last = before.length ? before[before.length - 1][0] : -Infinity;
    held.series[name] = before.concat(points.filter(([step]) => step > last));
  }
  held.refreshes = [...new Set([...held.refreshes, ...curves.refreshes])].sort(
    (one, other) => one - other,
  );
  held.step = curves.step;
  if (held.names !== Object.keys(held.series).join()) layOut(held);
  tellState({ ...curves, refreshes: held.refreshes });
  sayState(curves);
  for (const chart of held.charts) chart.update(held.series, held.refreshes);
}

async function follow(name, mine) {
  let wait = POLL_MS.running;
  try {
    // The held-out line of a step comes after its training line: the newest step is asked again.
    const curves = await api.curves(name, Math.max(-1, held.step - 1));
    if (mine !== visit) return;
    if (curves.step < held.step) {
      // the run was cut, and goes on from a checkpoint
      held = nothingHeld(held.charts, held.names);
      await follow(name, mine);
      return;
    }
    take(curves);
    byId("curves").querySelector(".alarm")?.remove();
    if (curves.state === "finished") return;
    wait = POLL_MS[curves.state] ?? wait;
  } catch (error) {
    if (mine !== visit) return;
    byId("curves").querySelector(".alarm")?.remove();
    byId("curves").prepend(errorNotice(error, "The curves cannot be read"));
    if (error.status >= 400 && error.status < 500 && error.status !== 429) return;
  }
  timer = setTimeout(() => follow(name, mine), wait);
}

/** Show the run that an address names, else the first. */
export async function arriveAtTraining(params) {
  leaveTraining();
  const mine = visit;
  try {
    const { runs } = await api.runs();
    if (mine !== visit) return;
    if (!runs.length) {
      byId("runs").replaceChildren(noRuns());
      byId("curves").replaceChildren();
      return;
    }
    const name = params.run ?? (runs.find((run) => run.state === "running") ?? runs[0]).name;
    if (!params.run) note(address("training", { run: name }));
    byId("runs").replaceChildren(chooser(runs, name));
    held = nothingHeld();
    byId("curves").replaceChildren(el("p", { class: "quiet" }, "Reading the curves"));
    await follow(name, mine);
  } catch (error) {
    if (mine === visit)
      byId("runs").replaceChildren(errorNotice(error, "The runs cannot be listed"));
  }
}

export function leaveTraining() {
  visit += 1;
  clearTimeout(timer);
  held?.charts.forEach((chart) => chart.stop());
  held = null;
}
