// The tab "Ask": a question, its answers, and where their words stand.

import { api } from "./api.js";
import { byId, el, notice, say } from "./dom.js";
import { evidence, otherAnswers, passagesRead, readFirst } from "./evidence.js";
import { RequestForm } from "./form.js";
import { probability } from "./format.js";
import { gauge } from "./gauge.js";
import { address, go } from "./route.js";

const NUM_ANSWERS = 3;
let library = null;

function isBadNumber(id) {
  return !byId(id).checkValidity();
}

function problemWith({ q }) {
  if (!q) return "Found no question. Expected one in words: write it, then press Enter.";
  if (isBadNumber("ask-answers")) return "Found another number of answers. Expected 1 to 50.";
  if (isBadNumber("ask-read")) return "Found another number of passages. Expected 1 to 50.";
  if (isBadNumber("ask-min")) return "Found another least probability. Expected 0 to 1.";
  return "";
}

function requestOf({ q, n, read, min }) {
  return {
    question: q,
    num_answers: Number(n) || NUM_ANSWERS,
    ...(read ? { num_passages: Number(read) } : {}),
    ...(min === "" || min === undefined ? {} : { min_probability: Number(min) }),
  };
}

function calibration(answered) {
  return answered.calibrated
    ? el(
        "span",
        {
          class: "tag",
          title: "The chance that this answer is right, fitted on questions with known answers",
        },
        "calibrated",
      )
    : el(
        "span",
        {
          class: "tag open",
          title: "The reader’s own p(y|x); it was not fitted to how often such answers are right",
        },
        "not calibrated",
      );
}

function doubt(answered) {
  return answered.why_inexact
    ? el("p", { class: "why doubt" }, `Probabilities may be off: ${answered.why_inexact}.`)
    : null;
}

function said(answered, answer) {
  const threshold = answered.min_probability ?? 0;
  return el(
    "header",
    { class: "said" },
    el("p", { class: "label" }, "Answer"),
    el("p", { class: "answer", id: "answer" }, answer.text),
    el(
      "p",
      { class: "measure" },
      el("span", { class: "p-name" }, "p"),
      el("span", { class: "p-value" }, probability(answer.probability)),
      calibration(answered),
      answered.calibrated && threshold === 0
        ? el("span", { class: "tag open plainly" }, "no threshold")
        : null,
    ),
    gauge(answer.probability, threshold),
    doubt(answered),
  );
}

function seeAnyway() {
  byId("ask-min").value = "0";
  go(address("ask", form.parameters()));
}

function noAnswer(answered) {
  const best = answered.answers[0];
  const threshold = answered.min_probability ?? 0;
  const why = best
    ? `The best guess reaches p = ${probability(best.probability)}; less than ${probability(threshold)} is not said.`
    : answered.passages.length
      ? "No passage that was read holds one."
      : "There are no documents to find it in.";
  return el(
    "header",
    { class: "said" },
    el("p", { class: "label" }, "Answer"),
    el("p", { class: "answer none", id: "answer" }, "No answer"),
    el("p", { class: "why" }, why),
    best ? gauge(best.probability, threshold) : null,
    doubt(answered),
    best && threshold > 0
      ? el(
          "p",
          { class: "row" },
          el("button", { type: "button", id: "anyway", onclick: seeAnyway }, "Show the best guess"),
        )
      : null,
  );
}

function noDocuments() {
  return notice(
    "There are no documents yet",
    el(
      "p",
      {},
      "Answers are cut out of your documents. ",
      el("a", { href: "#documents" }, "Add some"),
      ", then ask.",
    ),
  );
}

/** What one reads before the first question. */
function welcome() {
  if (library?.num_documents === 0 && !library.num_passages) return noDocuments();
  const terms = [
    ["p", "how probable the answer is, over all passages read"],
    ["p(z|x)", "how much of that trust the retriever gives to one passage"],
    ["No answer", "is said where the best guess is less probable than the model’s threshold"],
  ];
  return el(
    "div",
    { class: "welcome" },
    el(
      "p",
      { class: "lead" },
      "Answers are cut out of your documents, word for word, and show where they stand.",
    ),
    el(
      "dl",
      { class: "terms" },
      ...terms.flatMap(([term, what]) => [el("dt", {}, term), el("dd", {}, what)]),
    ),
  );
}

function chosen(answered, index) {
  const answer = answered.answers[index];
  const select = (number) => {
    byId("chosen").replaceChildren(...chosen(answered, number));
    byId("chosen").querySelector("[aria-current]")?.focus();
  };
  return [
    evidence(answer),
    answered.answers.length > 1 ? otherAnswers(answered, index, select) : null,
  ].filter(Boolean);
}

function result(answered) {
  const found = answered.answer === null ? null : answered.answers[0];
  const told = el("div", { class: "told" }, found ? said(answered, found) : noAnswer(answered));
  if (found) told.append(el("div", { id: "chosen" }, ...chosen(answered, 0)));
  else if (answered.passages?.length) told.append(readFirst(answered.passages[0]));
  return [told, passagesRead(answered)];
}

function tell(answered) {
  const best = answered.answers[0];
  if (answered.answer === null) say("ask-said", "No answer.");
  else say("ask-said", `Answer: ${best.text}. Probability ${probability(best.probability)}.`);
}

async function send(params, signal) {
  const answered = await api.answer(requestOf(params), signal);
  tell(answered);
  return result(answered);
}

const form = new RequestForm({
  tab: "ask",
  fields: { q: "question", n: "ask-answers", read: "ask-read", min: "ask-min" },
  cleared: ["question"],
  words: {
    ready: "Ask",
    busy: "Asking",
    nothing: "There is nothing to ask",
    failed: "The question was not answered",
  },
  problemWith,
  send,
  welcome,
});

/** What the server holds is known, or has changed: what is shown may no longer be so. */
export function libraryChanged(status) {
  const isFirst = library === null;
  library = status;
  if (!form.parameters().q) form.show(welcome());
  else if (!isFirst) form.forget();
}

/** Show what an address names: a question is asked, none is the empty page. */
export function arriveAtAsk(params, again) {
  form.arrive(params, again);
}

export function setUpAsk() {
  form.setUp();
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, dialog");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (byId("panel-ask").hidden) return;
    event.preventDefault();
    byId("question").focus();
    byId("question").select();
  });
}
