// What an answer rests on: its words in their passage, the other answers, all that was read.

import { el } from "./dom.js";
import { counted, probability } from "./format.js";
import { bar } from "./gauge.js";
import { address } from "./route.js";
import { countPoints, withRange } from "./text.js";

function mark(words) {
  return el("mark", {}, words);
}

/** Return the address of a place in a document. */
function placeOf({ document, line, passage, start, end }) {
  return address("documents", {
    id: document,
    line,
    start,
    end,
    from: passage.start,
    to: passage.end,
  });
}

function place(answer) {
  // A run's own passages have no document to open, and so no line in it.
  if (!answer.line) return el("span", { class: "place" }, answer.passage.article_id);
  const where = `${answer.document}:${answer.line}`;
  return el(
    "a",
    { class: "place", href: placeOf(answer), title: "Open the document at this place" },
    where,
  );
}

function titleOf(passage) {
  return passage.title || passage.article_id;
}

/** Return a text whose hard-wrapped lines flow; its length, and so every offset, stays. */
function flowing(text) {
  const soft = /(?<!\n\r?)\r?\n(?![\r\n\-*#|>`+]|\d+[.)]\s)/g;
  return text.replace(soft, (end) => " ".repeat(end.length));
}

/** Return the Markdown heading that a passage begins with, where its title says the same. */
function heading({ title, text }) {
  const found = /^#+[ \t]+(.*)\r?\n[\r\n]*/.exec(text);
  return found && found[1].trim() === title ? found[0] : "";
}

/** Return a passage's text as one reads it under its title. */
export function body(passage) {
  return flowing(passage.text.slice(heading(passage).length));
}

/** Return a passage's text with an answer's words marked in it. */
function passageText(passage, answer) {
  const isHere = answer && answer.passage.id === passage.id;
  if (!isHere) return el("p", { class: "passage-text" }, body(passage));
  const [start, end] = [answer.start - passage.start, answer.end - passage.start];
  const skipped = countPoints(heading(passage));
  const nodes =
    start < skipped
      ? withRange(flowing(passage.text), start, end, mark)
      : withRange(body(passage), start - skipped, end - skipped, mark);
  return el("p", { class: "passage-text" }, ...nodes);
}

/** Return a passage as if all of it were the answer: its place is where it begins. */
function asWhole(passage) {
  return { ...passage, passage };
}

/** Return the passage that the retriever trusts most, for a question without an answer. */
export function readFirst(passage) {
  return figure("Read first", asWhole(passage), passageText(passage, null));
}

/** Return the passage that an answer was cut out of, with its place. */
export function evidence(answer) {
  return figure("Evidence", answer, passageText(answer.passage, answer));
}

/** Return where the same text stands, too: copies of a document, a text that documents repeat. */
function alsoIn(mentions = []) {
  if (!mentions.length) return null;
  const places = mentions.flatMap((mention, number) => [number ? ", " : "", place(mention)]);
  return el("p", { class: "also quiet" }, "Also in ", ...places);
}

function figure(name, answer, text) {
  const { passage } = answer;
  return el(
    "figure",
    { class: "evidence", "aria-label": name },
    el("p", { class: "label" }, name),
    el(
      "figcaption",
      {},
      el("span", { class: "passage-title" }, titleOf(passage)),
      place(answer),
      el("span", { class: "p-small" }, "p(z|x) ", el("b", {}, probability(passage.probability))),
    ),
    el("blockquote", {}, text),
    alsoIn(answer.same_text),
  );
}

function answerRow(answer, number, isChosen, select) {
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        class: "answer-row",
        "aria-current": isChosen ? "true" : null,
        onclick: () => select(number),
      },
      el("span", { class: "rank" }, String(number + 1)),
      el("span", { class: "answer-text" }, answer.text),
      bar(answer.probability),
      el("span", { class: "number" }, probability(answer.probability)),
    ),
  );
}

/** Return the list of all answers; choosing one shows its evidence. */
export function otherAnswers(answered, current, select) {
  const rows = answered.answers.map((answer, number) =>
    answerRow(answer, number, number === current, select),
  );
  return el(
    "section",
    { class: "others" },
    el("h2", { class: "label" }, "All answers"),
    el("ol", { class: "plain" }, ...rows),
  );
}

function passageRow(passage, number, answer) {
  return el(
    "li",
    {},
    el(
      "details",
      { class: "passage" },
      el(
        "summary",
        {},
        el("span", { class: "rank" }, String(number + 1)),
        el("span", { class: "passage-title" }, titleOf(passage)),
        el("span", { class: "number" }, probability(passage.probability)),
        bar(passage.probability),
      ),
      passageText(passage, answer),
      el("p", {}, place(asWhole(passage))),
    ),
  );
}

/** Return all passages that were read, with p(z|x) as bars; unfolding one shows its text. */
export function passagesRead(answered) {
  const passages = answered.passages ?? [];
  const best = answered.answer === null ? null : answered.answers[0];
  return el(
    "aside",
    { class: "read", "aria-labelledby": "read-title" },
    el(
      "h2",
      { class: "label", id: "read-title" },
      passages.length ? `${counted(passages.length, "passage")} read` : "Nothing was read",
      el("span", { class: "p-name" }, passages.length ? "p(z|x)" : ""),
    ),
    passages.length
      ? el(
          "ol",
          { class: "plain" },
          ...passages.map((passage, number) => passageRow(passage, number, best)),
        )
      : el(
          "p",
          { class: "quiet" },
          "There are no documents. ",
          el("a", { href: "#documents" }, "Add some"),
          ".",
        ),
  );
}
