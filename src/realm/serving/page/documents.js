// The tab "Documents": add, see them indexed, read, remove.

import { api } from "./api.js";
import { byId, el, errorNotice, notice, say } from "./dom.js";
import { count, counted, when } from "./format.js";
import { closeReader, openReader, setUpReader } from "./reader.js";
import { address, go } from "./route.js";
import { countPoints } from "./text.js";
import { setUpAdding, tellOf } from "./uploads.js";

/** Rows drawn at once; the rest is found by its name. */
const MOST_ROWS = 200;
const FEW = 12;
const MOST_ID_POINTS = 500;
const MOST_TITLE_POINTS = 4000;
/** A backslash, or a part between slashes that is empty, . or .. */
const NO_ID = /\\|(^|\/)\.{0,2}(\/|$)/;
/** Ids on their way out: a second click would fail, and its error would take "Undo" away. */
const leaving = new Set();
/** Made once: 20,000 names take a browser seconds where each two of them look for it anew. */
const byLocale = new Intl.Collator(undefined, { numeric: true });
let changed = async () => {};
let known = { documents: [], numPassages: 0 };
let filter = "";
let asked = 0;

function link(info) {
  return el(
    "a",
    { class: "document-link", href: address("documents", { id: info.id }) },
    el("span", { class: "passage-title" }, info.title || info.id),
    info.title && info.title !== info.id ? el("span", { class: "quiet snippet" }, info.id) : null,
  );
}

function row(info) {
  return el(
    "tr",
    { role: "row" },
    el("th", { scope: "row", role: "rowheader" }, link(info)),
    el(
      "td",
      {
        role: "cell",
        "data-unit": info.num_characters === 1 ? "character" : "characters",
        class: "number",
      },
      count(info.num_characters),
    ),
    el(
      "td",
      {
        role: "cell",
        "data-unit": info.num_passages === 1 ? "passage" : "passages",
        class: "number",
      },
      count(info.num_passages),
    ),
    el("td", { role: "cell", title: info.added_at }, when(info.added_at)),
    el(
      "td",
      { role: "cell", class: "acts" },
      el(
        "button",
        {
          type: "button",
          class: "small",
          "aria-label": `Remove ${info.id}`,
          onclick: () => remove(info),
        },
        "Remove",
      ),
    ),
  );
}

function named() {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return known.documents.filter(({ id, title }) =>
    words.every((word) => `${id} ${title}`.toLowerCase().includes(word)),
  );
}

function rows(documents) {
  const left = documents.length - MOST_ROWS;
  const drawn = documents.slice(0, MOST_ROWS).map(row);
  if (left > 0) {
    const told = `${counted(left, "more document")}: find one by its name`;
    drawn.push(
      el("tr", { role: "row" }, el("td", { role: "cell", colspan: 5, class: "quiet" }, told)),
    );
  }
  return drawn;
}

function finder() {
  const draw = (event) => {
    filter = event.target.value;
    const found = named();
    byId("rows").replaceChildren(...rows(found));
    say("documents-said", `${counted(found.length, "document")} found`);
  };
  return el("input", {
    id: "find",
    type: "text",
    class: "find",
    placeholder: "Find by name",
    "aria-label": "Find a document by its name",
    value: filter,
    oninput: draw,
    spellcheck: "false",
    onkeydown: (event) => {
      if (event.key !== "Escape") return;
      event.target.value = "";
      draw(event);
    },
  });
}

function table() {
  const heads = [
    ["Document", ""],
    ["Characters", "number"],
    ["Passages", "number"],
    ["Added", ""],
  ];
  const { documents, numPassages } = known;
  return [
    el(
      "div",
      { class: "listing-head" },
      el(
        "p",
        { class: "label", id: "how-many" },
        `${counted(documents.length, "document")}, ${counted(numPassages, "passage")}`,
      ),
      documents.length > FEW ? finder() : null,
    ),
    el(
      "div",
      { class: "table-frame" },
      el(
        "table",
        { class: "listing", role: "table", "aria-labelledby": "how-many" },
        el(
          "thead",
          { role: "rowgroup" },
          el(
            "tr",
            { role: "row" },
            ...heads.map(([name, kind]) =>
              el("th", { scope: "col", role: "columnheader", class: kind || null }, name),
            ),
            el(
              "th",
              { scope: "col", role: "columnheader" },
              el("span", { class: "visually-hidden" }, "Remove"),
            ),
          ),
        ),
        el("tbody", { id: "rows", role: "rowgroup" }, ...rows(named())),
      ),
    ),
  ];
}

function fixed(numPassages) {
  return notice(
    "These passages cannot be changed here",
    el(
      "p",
      {},
      `The model answers from ${counted(numPassages, "passage")} of its own run. Documents of yours are read by `,
      el("code", {}, "realm serve --library FOLDER"),
      ".",
    ),
  );
}

function nothing() {
  return notice(
    "There are no documents yet",
    el(
      "p",
      {},
      "Drop a few files above, or paste a text. What you add here is read for the next question.",
    ),
  );
}

/** Return what an element of the listing is known by when it is drawn anew. */
function keyOf(element) {
  return element.id || element.getAttribute("href") || element.getAttribute("aria-label");
}

/** Draw the listing anew; whoever writes a name, or is at a document, goes on there. */
function draw(...nodes) {
  const listing = byId("listing");
  const at = listing.contains(document.activeElement) ? document.activeElement : null;
  const [key, start, end] = at ? [keyOf(at), at.selectionStart, at.selectionEnd] : [];
  listing.replaceChildren(...nodes);
  const drawn = at ? [...listing.querySelectorAll("a, button, input")] : [];
  const again = drawn.find((element) => keyOf(element) === key);
  again?.focus();
  if (again?.id === "find") again.setSelectionRange(start, end);
}

async function list() {
  asked += 1;
  const mine = asked;
  try {
    const { documents, num_passages: numPassages } = await api.documents();
    if (mine !== asked) return;
    const name = ({ id, title }) => title || id;
    const byName = (one, other) => byLocale.compare(name(one), name(other));
    known = { documents: documents.toSorted(byName), numPassages };
    if (documents.length <= FEW) filter = "";
    const isFixed = !documents.length && numPassages > 0;
    document.querySelector(".adding").hidden = isFixed;
    const empty = isFixed ? fixed(numPassages) : nothing();
    draw(...(documents.length ? table() : [empty]));
  } catch (error) {
    if (mine === asked) draw(errorNotice(error, "The documents cannot be listed"));
  }
}

/** Whether the server would take a document as it is; a library may hold what others put there. */
function canComeBack({ id, text, title }) {
  const isShort = countPoints(id) <= MOST_ID_POINTS && countPoints(title) <= MOST_TITLE_POINTS;
  return Boolean(text.trim()) && isShort && !NO_ID.test(id);
}

async function putBack(kept) {
  const { id, text, title, format } = kept;
  try {
    await api.addDocument({ id, text, format, ...(title ? { title } : {}) });
    tellOf(null);
    say("documents-said", `${id} is back.`);
  } catch (error) {
    const told = errorNotice(error, `${id} was not put back`);
    tellOf(el("div", {}, told, strip(kept, undo(kept))));
  }
  await Promise.all([list(), changed()]);
}

function undo(kept) {
  return el(
    "button",
    { type: "button", class: "small", id: "undo", onclick: () => putBack(kept) },
    "Undo",
  );
}

function strip(kept, after) {
  return el("p", { class: "strip" }, el("span", {}, "Removed ", el("b", {}, kept.id)), after);
}

function removed(kept) {
  const isUndone = canComeBack(kept);
  const after = isUndone
    ? undo(kept)
    : el("span", { class: "quiet", tabindex: "-1" }, "It cannot be brought back from here");
  tellOf(strip(kept, after));
  after.focus();
  const told = isUndone ? "Undo brings it back." : "It cannot be brought back from here.";
  say("documents-said", `Removed ${kept.id}. ${told}`);
}

async function remove(info) {
  if (leaving.has(info.id)) return;
  leaving.add(info.id);
  try {
    const kept = await api.document(info.id);
    await api.removeDocument(info.id);
    removed(kept);
  } catch (error) {
    tellOf(errorNotice(error, `${info.id} was not removed`));
  } finally {
    leaving.delete(info.id);
  }
  await Promise.all([list(), changed()]);
}

/** Give the focus to the link of a document that was read, where nothing else has it. */
function focusOn(id) {
  if (document.activeElement !== document.body) return;
  const href = address("documents", { id });
  const links = [...byId("listing").querySelectorAll(".document-link")];
  (links.find((one) => one.getAttribute("href") === href) ?? byId("tab-documents")).focus();
}

/** Show the listing, or the document (and place in it) that an address names. */
export function arriveAtDocuments(params) {
  byId("library").hidden = Boolean(params.id);
  if (params.id) {
    openReader(params);
  } else {
    const read = closeReader();
    list().then(() => read && focusOn(read));
  }
}

export function setUpDocuments(whenChanged) {
  changed = whenChanged;
  setUpReader();
  setUpAdding(() => Promise.all([list(), changed()]));
  byId("reader").addEventListener("keydown", (event) => {
    if (event.key === "Escape") go("#documents");
  });
}
