// The page: tabs, what answers, the token; each tab is a module of its own.

import { api, keepToken, onTokenWanted } from "./api.js";
import { arriveAtAsk, libraryChanged, setUpAsk } from "./ask.js";
import { byId, el } from "./dom.js";
import { arriveAtDocuments, setUpDocuments } from "./documents.js";
import { arriveAtFill, modelKnown, setUpFill } from "./fill.js";
import { count } from "./format.js";
import { leaveReader } from "./reader.js";
import { go, lastOn, startRouting } from "./route.js";
import { arriveAtTraining, leaveTraining } from "./training.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const TITLES = { ask: "Ask", fill: "Fill the blank", documents: "Documents", training: "Training" };
let current = "";

function factsOf(status) {
  const model = typeof status.model === "string" ? status.model : status.model?.name;
  const facts = [["Model", model ?? "unnamed"]];
  if (status.num_documents !== undefined && status.num_documents !== null) {
    facts.push(["Documents", count(status.num_documents)]);
  }
  if (status.num_passages !== undefined) facts.push(["Passages", count(status.num_passages)]);
  if (status.staleness) facts.push(["Staleness", count(status.staleness)]);
  return facts;
}

async function refreshStatus() {
  try {
    const status = await api.status();
    const facts = factsOf(status).map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value)),
    );
    byId("facts").replaceChildren(...facts);
    libraryChanged(status);
    modelKnown(status);
  } catch (error) {
    const fact = el(
      "div",
      { class: "alarm" },
      el("dt", {}, "Server"),
      el("dd", {}, error.code ?? "unknown"),
    );
    byId("facts").replaceChildren(fact);
  }
}

function arrive({ tab, params }) {
  const again = tab === current;
  const isLeaving = current === "documents" && !again;
  if (current === "training" && tab !== "training") leaveTraining();
  current = tab;
  for (const button of tabs) {
    const isCurrent = button.dataset.tab === tab;
    button.setAttribute("aria-selected", String(isCurrent));
    button.tabIndex = isCurrent ? 0 : -1;
    byId(button.getAttribute("aria-controls")).hidden = !isCurrent;
  }
  document.title = params.q ? `${params.q} \u2013 REALM` : `${TITLES[tab]} \u2013 REALM`;
  if (tab === "ask") arriveAtAsk(params, again);
  else if (tab === "fill") arriveAtFill(params, again);
  else if (tab === "documents") arriveAtDocuments(params);
  else arriveAtTraining(params);
  if (isLeaving) leaveReader();
}

function onTabKey(event) {
  const here = tabs.indexOf(event.currentTarget);
  const places = {
    ArrowRight: here + 1,
    ArrowLeft: here - 1,
    Home: 0,
    End: tabs.length - 1,
  };
  if (!(event.key in places)) return;
  event.preventDefault();
  const next = tabs[(places[event.key] + tabs.length) % tabs.length];
  next.focus();
  go(lastOn(next.dataset.tab));
}

let asking = null;

/** Ask for a token once, however many requests were refused; resolve to whether there is one. */
function wantToken(error) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    byId("token-wrong").textContent = sessionStorage.length ? error.message : "";
    dialog.addEventListener(
      "close",
      () => {
        const token = byId("token").value.trim();
        if (token) keepToken(token);
        byId("token").value = "";
        asking = null;
        resolve(Boolean(token));
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

/** Keep asking where a token holds what no header may: no request would leave the browser. */
function checkToken(event) {
  if (!/[^\x20-\xff]/.test(byId("token").value)) return;
  event.preventDefault();
  byId("token-wrong").textContent =
    "Found a character that no browser can send, expected the token as the server has it.";
}

function start() {
  onTokenWanted(wantToken);
  byId("token-form").addEventListener("submit", checkToken);
  byId("token-dialog").addEventListener("cancel", () => {
    byId("token").value = ""; // Escape gives none
  });
  for (const button of tabs) {
    const { tab } = button.dataset;
    const isReading = () => tab === "documents" && current === tab; // a document: back to all of them
    button.addEventListener("click", () => go(isReading() ? "#documents" : lastOn(tab)));
    button.addEventListener("keydown", onTabKey);
  }
  setUpAsk();
  setUpFill();
  setUpDocuments(refreshStatus, () => go("#documents"));
  startRouting(arrive);
  refreshStatus();
  if (current === "ask" && !byId("question").value && matchMedia("(hover: hover)").matches) {
    byId("question").focus();
  }
}

start();
