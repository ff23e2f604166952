// A document as it is, line by line, with an answer's words marked and scrolled to.

import { api } from "./api.js";
import { byId, el, errorNotice } from "./dom.js";
import { counted } from "./format.js";
import { countPoints, unitIndex } from "./text.js";

let opened = 0;
let reading = null;
let opener = null;

/**
 * Return the part of a document that offsets count in: all of it, or one record of JSON lines.
 * A record that JavaScript cannot read is shown in its file, where offsets mean nothing.
 */
function partOf(kept, line) {
  const whole = { title: kept.title || kept.id, text: kept.text, firstLine: 1, record: null };
  if (kept.format !== "jsonl" || !line) return { ...whole, isCounted: kept.format !== "jsonl" };
  try {
    const written = kept.text.split("\n")[line - 1].replace(/^\ufeff/, "");
    const { title, text } = JSON.parse(written);
    if (typeof text !== "string") return { ...whole, isCounted: false };
    return { title: title || kept.id, text, firstLine: 1, record: line, isCounted: true };
  } catch {
    return { ...whole, isCounted: false };
  }
}

/** Return [start, end) of a range of code points, in UTF-16 units; null where there is none. */
function units(text, start, end) {
  if (start === undefined || end === undefined || !(Number(end) > Number(start))) return null;
  const first = unitIndex(text, Number(start));
  return [first, unitIndex(text, Number(end), { points: Number(start), units: first })];
}

function piece(words, isAnswer, isPassage) {
  if (isAnswer) return el("mark", {}, words);
  return isPassage ? el("span", { class: "in-passage" }, words) : document.createTextNode(words);
}

/** Return a line's nodes, cut where the answer or its passage begins or ends. */
function pieces(line, offset, answer, passage) {
  const cuts = [answer, passage]
    .filter(Boolean)
    .flat()
    .map((cut) => cut - offset);
  const inside = cuts.filter((cut) => cut > 0 && cut < line.length);
  const borders = [...new Set([0, ...inside, line.length])].sort((one, other) => one - other);
  const isIn = (range, from) =>
    Boolean(range) && from + offset >= range[0] && from + offset < range[1];
  return borders
    .slice(0, -1)
    .map((from, number) =>
      piece(line.slice(from, borders[number + 1]), isIn(answer, from), isIn(passage, from)),
    );
}

/** Return a text's lines; what ends with a line break does not begin another line. */
function linesOf(text) {
  const found = text.split("\n");
  if (found.length > 1 && found[found.length - 1] === "") found.pop();
  return found;
}

function lines(text, answer, passage) {
  let offset = 0;
  return linesOf(text).map((line, number) => {
    const nodes = pieces(line, offset, answer, passage);
    offset += line.length + 1;
    return el("div", { class: "line", "data-line": number + 1 }, ...(line ? nodes : [el("br")]));
  });
}

function heading(kept, part) {
  const size = `${counted(countPoints(part.text), "character")}, ${counted(linesOf(part.text).length, "line")}`;
  return el(
    "header",
    { class: "reader-head" },
    el("p", {}, el("a", { href: "#documents", class: "back" }, "All documents")),
    el("h2", { tabindex: "-1", id: "reader-title" }, part.title),
    el(
      "p",
      { class: "quiet" },
      part.record ? `${kept.id}, record on line ${part.record}` : kept.id,
      " \u00b7 ",
      size,
    ),
  );
}

function scrollTo(target) {
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target?.scrollIntoView({ block: "center", behavior: isCalm ? "auto" : "smooth" });
}

function show(kept, params) {
  const part = partOf(kept, Number(params.line));
  const answer = part.isCounted ? units(part.text, params.start, params.end) : null;
  const passage = part.isCounted ? units(part.text, params.from, params.to) : null;
  const isWhole = answer && passage && answer[0] === passage[0] && answer[1] === passage[1];
  // A passage that is nearly all of a text would only colour it.
  const isAll = !isWhole && passage && passage[1] - passage[0] > 0.9 * part.text.length;
  const body = el(
    "div",
    { class: `lines${kept.format === "jsonl" && !part.record ? " raw" : ""}` },
    ...lines(part.text, isWhole ? null : answer, isAll ? null : passage),
  );
  byId("reader").replaceChildren(heading(kept, part), body);
  byId("reader-title").focus({ preventScroll: true });
  const target = body.querySelector("mark") ?? body.querySelector(".in-passage");
  if (target) scrollTo(target);
  else scrollTo(byId("reader-title"));
}

/** Show the document `params.id`, at the place that the other parameters name. */
export async function openReader(params) {
  opened += 1;
  reading = params.id;
  const mine = opened;
  const reader = byId("reader");
  reader.hidden = false;
  reader.replaceChildren(el("p", { class: "quiet" }, "Opening ", el("b", {}, params.id)));
  try {
    const kept = await api.document(params.id);
    if (mine === opened) show(kept, params);
  } catch (error) {
    if (mine !== opened) return;
    const back = el("p", {}, el("a", { href: "#documents", class: "back" }, "All documents"));
    reader.replaceChildren(back, errorNotice(error, "This document cannot be shown"));
  }
}

/** Close the document that is read; return its id, null where there is none. */
export function closeReader() {
  const read = reading;
  reading = null;
  opened += 1;
  byId("reader").hidden = true;
  byId("reader").replaceChildren();
  return read;
}

/** Give the focus back to the link that opened the document, where another tab has that link. */
export function leaveReader() {
  const at = document.activeElement;
  const isLost = !at || at === document.body || byId("reader").contains(at);
  if (isLost && opener?.isConnected && !opener.closest("[hidden]")) opener.focus();
}

export function setUpReader() {
  addEventListener("click", (event) => {
    opener = event.target.closest?.("a[href^='#documents?']") ?? opener;
  });
}
