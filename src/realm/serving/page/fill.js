// The tab "Fill the blank": Table 3 of the paper for any sentence.

import { api } from "./api.js";
import { byId, el, errorNotice, notice, say } from "./dom.js";
import { body } from "./evidence.js";
import { probability, signed } from "./format.js";
import { bar } from "./gauge.js";
import { address, go } from "./route.js";

const MASK = "[MASK]";
const NUM_CANDIDATES = 8;
const TABLE_3 = {
  s: "An equilateral triangle is easily constructed using a straightedge and compass, because 3 is a [MASK] prime.",
  y: "Fermat",
};
let running = null;
let shown = "";

function parameters() {
  return {
    s: byId("sentence").value.trim(),
    y: byId("fill-answer").value.trim(),
    k: byId("fill-candidates").value,
  };
}

function problemWith({ s }) {
  if (!s) return "Found no sentence. Expected one with a blank: write [MASK] where a word is missing.";
  if (!s.includes(MASK)) {
    return "Found no [MASK] in the sentence. Expected one: select a word and press “Blank it”, or write [MASK].";
  }
  if (!byId("fill-candidates").checkValidity()) return "Found another number of candidates. Expected 2 to 50.";
  return "";
}

/** Put [MASK] where words are selected (or where the cursor is), and what stood there as answer. */
function blankIt() {
  const field = byId("sentence");
  let { value, selectionStart: start, selectionEnd: end } = field;
  const earlier = value.indexOf(MASK);
  const answer = byId("fill-answer").value.trim();
  if (earlier >= 0 && answer && !(start < earlier + MASK.length && end > earlier)) {
    value = value.slice(0, earlier) + answer + value.slice(earlier + MASK.length);
    const moved = start > earlier ? answer.length - MASK.length : 0;
    [start, end] = [start + moved, end + moved];
  }
  if (start === end) {
    while (start > 0 && /[\p{L}\p{N}]/u.test(value[start - 1])) start -= 1;
    while (end < value.length && /[\p{L}\p{N}]/u.test(value[end])) end += 1;
  }
  while (start < end && /\s/.test(value[start])) start += 1;
  while (end > start && /\s/.test(value[end - 1])) end -= 1;
  const words = value.slice(start, end);
  field.value = value.slice(0, start) + MASK + value.slice(end);
  if (words && words !== MASK) byId("fill-answer").value = words;
  field.focus();
  field.setSelectionRange(start, start + MASK.length);
}

function filled(sentence, answer) {
  const [before, ...after] = sentence.split(MASK);
  const words = answer || "\u2026";
  const nodes = after.flatMap((part, number) => [
    el("mark", {}, after.length === 1 ? words : (words.split(" ")[number] ?? words)), part]);
  return el("p", { class: "filled" }, before, ...nodes);
}

function utilityBar(value, scale) {
  return el("span", { class: `utility ${value < 0 ? "harms" : "helps"}`, "aria-hidden": "true" },
    el("span", { class: "utility-fill", "--p": scale ? Math.min(1, Math.abs(value) / scale) : 0 }));
}

function cell(name, ...children) {
  return el("td", { role: "cell", "data-name": name }, ...children);
}

function withBar(name, value, largest) {
  return cell(name, el("span", { class: "cell-bar" }, bar(largest ? value / largest : 0), el("span", { class: "number" }, probability(value))));
}

function passageCell(passage) {
  if (!passage) {
    return el("th", { scope: "row", role: "rowheader" }, el("span", { class: "passage-title" }, "Null passage"),
      el("span", { class: "quiet snippet" }, "nothing to read"));
  }
  return el("th", { scope: "row", role: "rowheader" },
    el("details", { class: "inline" },
      el("summary", {}, el("span", { class: "passage-title" }, passage.title || passage.article_id),
        el("span", { class: "quiet snippet" }, body(passage))),
      el("p", { class: "passage-text" }, body(passage))));
}

function candidateRow(candidate, largest, scale) {
  return el("tr", { role: "row", class: candidate.passage ? null : "null-passage" },
    passageCell(candidate.passage),
    withBar("p(z|x)", candidate.p_passage, 1),
    withBar("p(y|z,x)", candidate.p_answer, largest),
    cell("Utility", el("span", { class: "cell-bar" }, utilityBar(candidate.utility, scale),
      el("span", { class: "number" }, signed(candidate.utility)))));
}

/** The null passage first, then passages as the retriever trusts them. */
function inOrder(candidates) {
  return candidates.toSorted((one, other) =>
    Number(Boolean(one.passage)) - Number(Boolean(other.passage)) || other.p_passage - one.p_passage);
}

function table(explained) {
  const candidates = inOrder(explained.candidates);
  const scale = Math.max(...candidates.map(({ utility }) => Math.abs(utility)), 0);
  const largest = Math.max(...candidates.map(({ p_answer: p }) => p ?? 0));
  const heads = [["Passage z", ""], ["p(z|x)", "of 1"], ["p(y|z,x)", "of the largest"], ["Utility", "nats"]];
  return el("div", { class: "table-frame" }, el("table", { class: "table3", role: "table" },
    el("caption", { class: "label" }, "What each passage does for the answer"),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads.map(([name, what]) =>
      el("th", { scope: "col", role: "columnheader" }, name, what ? el("span", { class: "unit" }, ` ${what}`) : null)))),
    el("tbody", { role: "rowgroup" }, ...candidates.map((candidate) => candidateRow(candidate, largest, scale)))));
}

function figure(name, formula, value, words) {
  return el("div", { class: "figure" },
    el("dt", {}, name, " ", el("span", { class: "p-name" }, formula)),
    el("dd", {}, el("span", { class: "p-value" }, probability(value)), bar(value),
      words ? el("span", { class: "quiet" }, "fills in ", el("b", {}, words)) : null));
}

function result(explained) {
  const gain = Math.log(explained.p_marginal) - Math.log(explained.p_without);
  return [el("div", { class: "told wide" },
    el("header", { class: "said" },
      el("p", { class: "label" }, "The blank, filled"),
      filled(explained.sentence, explained.answer)),
    el("dl", { class: "figures" },
      figure("Without retrieval", "p(y|x, \u2205)", explained.p_without, explained.predicted_without),
      figure("With retrieval, summed", "p(y|x)", explained.p_marginal, explained.predicted),
      el("div", { class: "figure" }, el("dt", {}, "Retrieval gains"),
        el("dd", {}, el("span", { class: "p-value" }, Number.isFinite(gain) ? signed(gain) : "\u2013"),
          el("span", { class: "quiet" }, "nats: log p(y|x) \u2212 log p(y|x, \u2205)")))),
    table(explained))];
}

function noEncoder(error) {
  return notice("This model cannot fill blanks",
    el("p", {}, error.message),
    el("p", { class: "quiet" }, "A blank is filled by the encoder that ", el("code", {}, "realm pretrain"),
      " trains; a model made for questions has a reader instead."));
}

function tryTable3() {
  go(address("fill", TABLE_3));
}

function welcome() {
  return el("div", { class: "welcome" },
    el("p", { class: "lead" }, "How much does reading help? A word is left out; the model fills it in alone, then with each passage."),
    el("p", { class: "row" }, el("button", { type: "button", onclick: tryTable3 }, "Try the sentence of the paper’s Table 3")));
}

function show(...nodes) {
  byId("fill-result").replaceChildren(...nodes);
}

function setBusy(isBusy) {
  byId("panel-fill").classList.toggle("busy", isBusy);
  byId("fill-result").setAttribute("aria-busy", String(isBusy));
  byId("fill-button").textContent = isBusy ? "Filling" : "Fill";
}

async function fill(params) {
  const problem = problemWith(params);
  if (problem) {
    show(errorNotice({ message: problem }, "There is nothing to fill"));
    return;
  }
  running?.abort();
  const mine = new AbortController();
  running = mine;
  setBusy(true);
  try {
    const explained = await api.explain({
      sentence: params.s,
      num_candidates: Number(params.k) || NUM_CANDIDATES,
      ...(params.y ? { answer: params.y } : {}),
    }, mine.signal);
    show(...result(explained));
    say("fill-said", `${explained.answer}: ${probability(explained.p_without)} without retrieval, ${probability(explained.p_marginal)} with.`);
  } catch (error) {
    if (error.code === "no_encoder") show(noEncoder(error));
    else if (error.name !== "AbortError") show(errorNotice(error, "The blank was not filled"));
    shown = "";
  } finally {
    if (running === mine) {
      running = null;
      setBusy(false);
    }
  }
}

function submit() {
  const params = parameters();
  if (problemWith(params)) fill(params);
  else go(address("fill", params));
}

function onKey(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (running) running.abort();
    else {
      byId("sentence").value = "";
      byId("fill-answer").value = "";
    }
  }
}

/** Show what an address names. */
export function arriveAtFill(params, again) {
  byId("sentence").value = params.s ?? "";
  byId("fill-answer").value = params.y ?? "";
  byId("fill-candidates").value = params.k ?? "";
  const place = address("fill", parameters());
  if (!params.s) {
    shown = "";
    show(welcome());
  } else if (place !== shown || again) {
    shown = place;
    fill(parameters());
  }
}

export function setUpFill() {
  byId("fill-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("sentence").addEventListener("keydown", onKey);
  byId("blank").addEventListener("click", blankIt);
}
