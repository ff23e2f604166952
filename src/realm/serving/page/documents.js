// The tab "Documents": add, see them indexed, read, remove.

import { api } from "./api.js";
import { byId, el, errorNotice, notice, say } from "./dom.js";
import { count, counted, when } from "./format.js";
import { closeReader, openReader } from "./reader.js";
import { address, go } from "./route.js";
import { setUpAdding } from "./uploads.js";

let changed = async () => {};

function link(info) {
  return el("a", { class: "document-link", href: address("documents", { id: info.id }) },
    el("span", { class: "passage-title" }, info.title || info.id),
    info.title && info.title !== info.id ? el("span", { class: "quiet snippet" }, info.id) : null);
}

function row(info) {
  return el("tr", {},
    el("th", { scope: "row" }, link(info)),
    el("td", { "data-unit": "characters", class: "number" }, count(info.num_characters)),
    el("td", { "data-unit": info.num_passages === 1 ? "passage" : "passages", class: "number" }, count(info.num_passages)),
    el("td", { title: info.added_at }, when(info.added_at)),
    el("td", { class: "acts" },
      el("button", { type: "button", class: "small", "aria-label": `Remove ${info.id}`, onclick: () => remove(info) }, "Remove")));
}

function table(documents, numPassages) {
  const heads = [["Document", ""], ["Characters", "number"], ["Passages", "number"], ["Added", ""]];
  return el("div", { class: "table-frame" }, el("table", { class: "listing" },
    el("caption", { class: "label" },
      `${counted(documents.length, "document")}, ${counted(numPassages, "passage")}`),
    el("thead", {}, el("tr", {},
      ...heads.map(([name, kind]) => el("th", { scope: "col", class: kind || null }, name)),
      el("th", { scope: "col" }, el("span", { class: "visually-hidden" }, "Remove")))),
    el("tbody", {}, ...documents.map(row))));
}

function fixed(numPassages) {
  return notice("These passages cannot be changed here",
    el("p", {}, `The model answers from ${counted(numPassages, "passage")} of its own run. Documents of yours are read by `,
      el("code", {}, "realm serve --library FOLDER"), "."));
}

function nothing() {
  return notice("There are no documents yet",
    el("p", {}, "Drop a few files above, or paste a text. What you add here is read for the next question."));
}

async function list() {
  try {
    const { documents, num_passages: numPassages } = await api.documents();
    const recent = documents.toSorted((one, other) => other.added_at.localeCompare(one.added_at));
    const isFixed = !documents.length && numPassages > 0;
    document.querySelector(".adding").hidden = isFixed;
    const empty = isFixed ? fixed(numPassages) : nothing();
    byId("listing").replaceChildren(documents.length ? table(recent, numPassages) : empty);
  } catch (error) {
    byId("listing").replaceChildren(errorNotice(error, "The documents cannot be listed"));
  }
}

async function putBack(kept) {
  const { id, text, title, format } = kept;
  try {
    await api.addDocument({ id, text, format, ...(title ? { title } : {}) });
    byId("uploads").replaceChildren();
    say("documents-said", `${id} is back.`);
  } catch (error) {
    byId("uploads").replaceChildren(errorNotice(error, `${id} was not put back`));
  }
  await Promise.all([list(), changed()]);
}

function removed(kept) {
  const undo = el("button", { type: "button", class: "small", id: "undo", onclick: () => putBack(kept) }, "Undo");
  byId("uploads").replaceChildren(el("p", { class: "strip" }, el("span", {}, "Removed ", el("b", {}, kept.id)), undo));
  undo.focus();
  say("documents-said", `Removed ${kept.id}. Undo brings it back.`);
}

async function remove(info) {
  try {
    const kept = await api.document(info.id);
    await api.removeDocument(info.id);
    removed(kept);
  } catch (error) {
    byId("uploads").replaceChildren(errorNotice(error, `${info.id} was not removed`));
  }
  await Promise.all([list(), changed()]);
}

/** Show the listing, or the document (and place in it) that an address names. */
export function arriveAtDocuments(params) {
  byId("library").hidden = Boolean(params.id);
  if (params.id) {
    openReader(params);
  } else {
    closeReader();
    list();
  }
}

export function setUpDocuments(whenChanged) {
  changed = whenChanged;
  setUpAdding(() => Promise.all([list(), changed()]));
  byId("reader").addEventListener("keydown", (event) => {
    if (event.key === "Escape") go("#documents");
  });
}
