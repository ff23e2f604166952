// Table 3 of the paper for one sentence: alone, with each passage, summed.

import { el } from "./dom.js";
import { body } from "./evidence.js";
import { probability, signed } from "./format.js";
import { bar } from "./gauge.js";

export const MASK = "[MASK]";

function filled(sentence, answer) {
  const [before, ...after] = sentence.split(MASK);
  const words = answer || "\u2026";
  const nodes = after.flatMap((part, number) => [
    el("mark", {}, after.length === 1 ? words : (words.split(" ")[number] ?? words)),
    part,
  ]);
  return el("p", { class: "filled" }, before, ...nodes);
}

function utilityBar(value, scale) {
  return el(
    "span",
    { class: `utility ${value < 0 ? "harms" : "helps"}`, "aria-hidden": "true" },
    el("span", { class: "utility-fill", "--p": scale ? Math.min(1, Math.abs(value) / scale) : 0 }),
  );
}

function cell(name, ...children) {
  return el("td", { role: "cell", "data-name": name }, ...children);
}

function withBar(name, value, largest) {
  return cell(
    name,
    el(
      "span",
      { class: "cell-bar" },
      bar(largest ? value / largest : 0),
      el("span", { class: "number" }, probability(value)),
    ),
  );
}

function passageCell(passage) {
  if (!passage) {
    return el(
      "th",
      { scope: "row", role: "rowheader" },
      el("span", { class: "passage-title" }, "Null passage"),
      el("span", { class: "quiet snippet" }, "nothing to read"),
    );
  }
  return el(
    "th",
    { scope: "row", role: "rowheader" },
    el(
      "details",
      { class: "inline" },
      el(
        "summary",
        {},
        el("span", { class: "passage-title" }, passage.title || passage.article_id),
        el("span", { class: "quiet snippet" }, body(passage)),
      ),
      el("p", { class: "passage-text" }, body(passage)),
    ),
  );
}

function candidateRow(candidate, largest, scale) {
  return el(
    "tr",
    { role: "row", class: candidate.passage ? null : "null-passage" },
    passageCell(candidate.passage),
    withBar("p(z|x)", candidate.p_passage, 1),
    withBar("p(y|z,x)", candidate.p_answer, largest),
    cell(
      "Utility",
      el(
        "span",
        { class: "cell-bar" },
        utilityBar(candidate.utility, scale),
        el("span", { class: "number" }, signed(candidate.utility)),
      ),
    ),
  );
}

/** The null passage first, then passages as the retriever trusts them. */
function inOrder(candidates) {
  return candidates.toSorted(
    (one, other) =>
      Number(Boolean(one.passage)) - Number(Boolean(other.passage)) ||
      other.p_passage - one.p_passage,
  );
}

function table(explained) {
  const candidates = inOrder(explained.candidates);
  const scale = Math.max(...candidates.map(({ utility }) => Math.abs(utility)), 0);
  const largest = Math.max(...candidates.map(({ p_answer: p }) => p ?? 0));
  const heads = [
    ["Passage z", ""],
    ["p(z|x)", "of 1"],
    ["p(y|z,x)", "of the largest"],
    ["Utility", "nats"],
  ];
  return el(
    "div",
    { class: "table-frame" },
    el(
      "table",
      { class: "table3", role: "table" },
      el("caption", { class: "label" }, "What each passage does for the answer"),
      el(
        "thead",
        { role: "rowgroup" },
        el(
          "tr",
          { role: "row" },
          ...heads.map(([name, what]) =>
            el(
              "th",
              { scope: "col", role: "columnheader" },
              name,
              what ? el("span", { class: "unit" }, ` ${what}`) : null,
            ),
          ),
        ),
      ),
      el(
        "tbody",
        { role: "rowgroup" },
        ...candidates.map((candidate) => candidateRow(candidate, largest, scale)),
      ),
    ),
  );
}

function figure(name, formula, value, words) {
  return el(
    "div",
    { class: "figure" },
    el("dt", {}, name, " ", el("span", { class: "p-name" }, formula)),
    el(
      "dd",
      {},
      el("span", { class: "p-value" }, probability(value)),
      bar(value),
      words ? el("span", { class: "quiet" }, "fills in ", el("b", {}, words)) : null,
    ),
  );
}

/** Return what a sentence's blank was explained to be. */
export function explanation(explained) {
  const gain = Math.log(explained.p_marginal) - Math.log(explained.p_without);
  return [
    el(
      "div",
      { class: "told wide" },
      el(
        "header",
        { class: "said" },
        el("p", { class: "label" }, "The blank, filled"),
        filled(explained.sentence, explained.answer),
      ),
      el(
        "dl",
        { class: "figures" },
        figure(
          "Without retrieval",
          "p(y|x, \u2205)",
          explained.p_without,
          explained.predicted_without,
        ),
        figure("With retrieval, summed", "p(y|x)", explained.p_marginal, explained.predicted),
        el(
          "div",
          { class: "figure" },
          el("dt", {}, "Retrieval gains"),
          el(
            "dd",
            {},
            el("span", { class: "p-value" }, Number.isFinite(gain) ? signed(gain) : "\u2013"),
            el("span", { class: "quiet" }, "nats: log p(y|x) \u2212 log p(y|x, \u2205)"),
          ),
        ),
      ),
      table(explained),
    ),
  ];
}
