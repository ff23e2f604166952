// The tab "Fill the blank": Table 3 of the paper for any sentence.

import { api } from "./api.js";
import { byId, el, notice, say } from "./dom.js";
import { RequestForm } from "./form.js";
import { probability } from "./format.js";
import { address, go } from "./route.js";
import { MASK, explanation } from "./table3.js";

const NUM_CANDIDATES = 8;
const TABLE_3 = {
  s: "An equilateral triangle is easily constructed using a straightedge and compass, because 3 is a [MASK] prime.",
  y: "Fermat",
};
let cannot = "";

function problemWith({ s }) {
  if (!s)
    return "Found no sentence. Expected one with a blank: write [MASK] where a word is missing.";
  if (!s.includes(MASK)) {
    return "Found no [MASK] in the sentence. Expected one: select a word and press “Blank it”, or write [MASK].";
  }
  if (!byId("fill-candidates").checkValidity())
    return "Found another number of candidates. Expected 2 to 50.";
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
    // By code points, accents and joiners included: not one unit of a letter beyond 16 bits.
    start -= /[\p{L}\p{N}\p{M}\u200c\u200d]*$/u.exec(value.slice(0, start))[0].length;
    end += /^[\p{L}\p{N}\p{M}\u200c\u200d]*/u.exec(value.slice(end))[0].length;
  }
  while (start < end && /\s/.test(value[start])) start += 1;
  while (end > start && /\s/.test(value[end - 1])) end -= 1;
  const words = value.slice(start, end);
  field.value = value.slice(0, start) + MASK + value.slice(end);
  if (words && words !== MASK) byId("fill-answer").value = words;
  field.focus();
  field.setSelectionRange(start, start + MASK.length);
}

function noEncoder(error) {
  return notice(
    "This model cannot fill blanks",
    el("p", {}, error.message),
    el(
      "p",
      { class: "quiet" },
      "A blank is filled by the encoder that ",
      el("code", {}, "realm pretrain"),
      " trains; a model made for questions has a reader instead.",
    ),
  );
}

function tryTable3() {
  go(address("fill", TABLE_3));
}

/** Say before the first sentence whether the model can fill blanks at all. */
export function modelKnown(status) {
  if (status.can_explain !== false) return;
  cannot =
    `${status.model} has no encoder. Start the server with one of the same vocabulary: ` +
    "realm serve --encoder RUN.";
  if (form.isEmpty) form.show(welcome());
}

function welcome() {
  if (cannot) return noEncoder({ message: cannot });
  return el(
    "div",
    { class: "welcome" },
    el(
      "p",
      { class: "lead" },
      "How much does reading help? A word is left out; the model fills it in alone, then with each passage.",
    ),
    el(
      "p",
      { class: "row" },
      el(
        "button",
        { type: "button", onclick: tryTable3 },
        "Try the sentence of the paper’s Table 3",
      ),
    ),
  );
}

async function send(params, signal) {
  const explained = await api.explain(
    {
      sentence: params.s,
      num_candidates: Number(params.k) || NUM_CANDIDATES,
      ...(params.y ? { answer: params.y } : {}),
    },
    signal,
  );
  say(
    "fill-said",
    `${explained.answer}: ${probability(explained.p_without)} without retrieval, ${probability(explained.p_marginal)} with.`,
  );
  return explanation(explained);
}

const form = new RequestForm({
  tab: "fill",
  fields: { s: "sentence", y: "fill-answer", k: "fill-candidates" },
  cleared: ["sentence", "fill-answer"],
  words: {
    ready: "Fill",
    busy: "Filling",
    nothing: "There is nothing to fill",
    failed: "The blank was not filled",
  },
  problemWith,
  send,
  welcome,
  failure: (error) => (error.code === "no_encoder" ? noEncoder(error) : undefined),
});

/** Show what an address names: a sentence is filled, none is the empty page. */
export function arriveAtFill(params, again) {
  form.arrive(params, again);
}

export function setUpFill() {
  form.setUp();
  byId("blank").addEventListener("click", blankIt);
}
