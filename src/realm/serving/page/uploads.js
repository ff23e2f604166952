// Files and texts on their way to the server, one after the other, each with what became of it.

import { api } from "./api.js";
import { byId, el, say } from "./dom.js";
import { count, counted } from "./format.js";
import { go } from "./route.js";

const ENDINGS = [".txt", ".md", ".jsonl"];
const ASK_EVERY_MS = 300;
let queue = Promise.resolve();
let afterwards = async () => {};

function problemWith(file) {
  if (file.isFolder)
    return "Found a folder, expected files. On the command line, realm docs add takes folders.";
  if (!ENDINGS.some((ending) => file.name.toLowerCase().endsWith(ending))) {
    return `Found another kind of file, expected ${ENDINGS.join(", ")}. Save it as text first.`;
  }
  if (file.size === 0) return "Found an empty file, expected text.";
  return "";
}

/** Return what adding did, in words. */
function outcome({ added, replaced, unchanged, skipped, num_embedded: numEmbedded }) {
  const left = Object.entries(skipped?.counts ?? skipped ?? {}).filter(
    ([, value]) => Number(value) > 0,
  );
  const lost = left.map(([reason, value]) => `${count(value)} left out: ${reason}`);
  const what = added.length
    ? "Added"
    : replaced.length
      ? "Replaced"
      : unchanged.length
        ? "Unchanged"
        : "Nothing added";
  const passages =
    what === "Added" || what === "Replaced" ? [`${counted(numEmbedded, "passage")} embedded`] : [];
  return { what, details: [...passages, ...lost].join("; "), isWhole: lost.length === 0 };
}

function line(name) {
  const state = el("span", { class: "upload-state quiet" }, "Waiting");
  const progress = el("progress", {
    class: "upload-progress",
    "aria-label": `Indexing ${name}`,
    hidden: true,
  });
  const entry = el(
    "li",
    { class: "upload" },
    el("span", { class: "upload-name" }, name),
    progress,
    state,
  );
  return { entry, state, progress };
}

async function watch(progress, state, isOver) {
  while (!isOver()) {
    await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
    const { done, total } = await api.progress().catch(() => ({ done: 0, total: 0 }));
    if (isOver()) return;
    if (total > 0) {
      progress.max = total;
      progress.value = done;
      state.textContent = `${count(done)} of ${counted(total, "passage")}`;
    }
  }
}

async function bring({ entry, state, progress }, name, send) {
  let isOver = false;
  progress.hidden = false;
  state.textContent = "Indexing";
  const watching = watch(progress, state, () => isOver);
  try {
    const { what, details, isWhole } = outcome(await send());
    entry.classList.add("done", isWhole ? "whole" : "partly");
    state.textContent = details ? `${what}: ${details}` : what;
    say("documents-said", `${name}: ${state.textContent}`);
  } catch (error) {
    refuse({ entry, state }, name, error.message);
  } finally {
    isOver = true;
    progress.hidden = true;
  }
  await watching;
}

function refuse({ entry, state }, name, message) {
  entry.classList.add("failed");
  state.textContent = message;
  say("documents-said", `${name} was not added. ${message}`);
}

/** Show something in place of what became of earlier files; lines of those under way stay. */
export function tellOf(node, entries = []) {
  const underWay = byId("uploads").querySelectorAll(".upload:not(.done, .failed)");
  const lines = [...underWay, ...entries];
  const list = lines.length ? el("ul", { class: "plain uploads" }, ...lines) : null;
  byId("uploads").replaceChildren(...[node, list].filter(Boolean));
}

/** Add files in their order; one that fails does not keep the others back. */
function addFiles(files) {
  const lines = files.map((file) => line(file.name));
  const entries = lines.map(({ entry }) => entry);
  tellOf(null, entries);
  files.forEach((file, number) => {
    const problem = problemWith(file);
    if (problem) refuse(lines[number], file.name, problem);
    else queue = queue.then(() => bring(lines[number], file.name, () => api.addFile(file)));
  });
  queue = queue.then(() => afterwards());
}

function addText() {
  const text = byId("paste-text").value;
  const given = byId("paste-id").value.trim();
  const id = given && !/\.[a-z]+$/i.test(given) ? `${given}.md` : given || "pasted.md";
  const shown = line(id);
  tellOf(null, [shown.entry]);
  if (!text.trim()) {
    refuse(shown, id, "Found no text. Paste one into the field, then add it.");
    return;
  }
  const format = id.endsWith(".txt") ? "text" : id.endsWith(".jsonl") ? "jsonl" : "markdown";
  queue = queue.then(async () => {
    await bring(shown, id, () => api.addDocument({ id, text, format }));
    // Somebody may be writing the next one already.
    const isSent = byId("paste-text").value === text && byId("paste-id").value.trim() === given;
    if (shown.entry.classList.contains("done") && isSent) setPasting(false);
    await afterwards();
  });
}

function setPasting(isOpen) {
  byId("paste-form").hidden = !isOpen;
  byId("paste").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) {
    byId("paste-id").focus();
  } else {
    byId("paste-form").reset();
    if (!byId("panel-documents").hidden) byId("paste").focus();
  }
}

function dropped(event) {
  const items = [...(event.dataTransfer?.items ?? [])].filter((item) => item.kind === "file");
  return items
    .map((item) => {
      const file = item.getAsFile();
      const isFolder = item.webkitGetAsEntry?.()?.isDirectory;
      return isFolder ? { name: file?.name ?? "folder", isFolder } : file;
    })
    .filter(Boolean);
}

function setUpDropping() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    byId("drop").classList.remove("over");
    if (!hasFiles(event)) return;
    event.preventDefault(); // a file dropped beside the box must not replace the page
    const files = dropped(event);
    if (byId("panel-documents").hidden || byId("library").hidden) go("#documents");
    if (files.length) addFiles(files);
  });
}

/** Make the box, the button and the form work; `whenDone` is called after each addition. */
export function setUpAdding(whenDone) {
  afterwards = whenDone;
  setUpDropping();
  byId("pick").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", () => {
    addFiles([...byId("files").files]);
    byId("files").value = "";
  });
  byId("paste").addEventListener("click", () => setPasting(byId("paste-form").hidden));
  byId("paste-cancel").addEventListener("click", () => setPasting(false));
  byId("paste-form").addEventListener("keydown", (event) => {
    if (event.key === "Escape") setPasting(false);
  });
  byId("paste-form").addEventListener("submit", (event) => {
    event.preventDefault();
    addText();
  });
}
