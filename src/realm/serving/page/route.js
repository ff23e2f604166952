// Where one is stands in the address: #ask?q=..., so that it can be linked, and "back" works.

const TABS = ["ask", "fill", "documents", "training"];
const last = {};
let listener = () => {};

/** Return {tab, params} of an address; an unknown tab is the first. */
export function parse(hash) {
  const [name, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const tab = TABS.includes(name) ? name : TABS[0];
  return { tab, params: Object.fromEntries(new URLSearchParams(query)) };
}

/** Return the address of a place; empty parameters are left out. */
export function address(tab, params = {}) {
  const kept = Object.entries(params).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(kept.map(([name, value]) => [name, String(value)]));
  return `#${tab}${kept.length ? `?${query}` : ""}`;
}

/** Return where one last was on a tab. */
export function lastOn(tab) {
  return last[tab] ?? `#${tab}`;
}

function arrive() {
  const place = parse(location.hash);
  last[place.tab] = location.hash || `#${place.tab}`;
  listener(place);
}

/** Go to an address; going where one is does the same again. */
export function go(hash) {
  if (location.hash === hash) arrive();
  else location.hash = hash;
}

/** Change the address without a step in the history. */
export function note(hash) {
  history.replaceState(null, "", hash);
  last[parse(hash).tab] = hash;
}

/** Call `arrived` with each place that the address names, now and later. */
export function startRouting(arrived) {
  listener = arrived;
  addEventListener("hashchange", arrive);
  arrive();
}
