// A form that asks the server: one request at a time, Enter sends it, Escape stops or clears.

import { byId, errorNotice } from "./dom.js";
import { address, go } from "./route.js";

/** The form of one tab, whose elements are named after it: panel-TAB, TAB-form, TAB-result, TAB-button. */
export class RequestForm {
  #running = null;
  #shown = "";

  /**
   * @param tab its name in addresses.
   * @param fields each parameter of an address -> id of its input; the first is required.
   * @param cleared ids of the inputs that Escape empties.
   * @param words { ready, busy, nothing, failed }: on the button, and above a problem.
   * @param problemWith parameters -> what is wrong with them, or "".
   * @param send (parameters, signal) -> nodes to show.
   * @param welcome () -> the node shown without parameters.
   * @param failure error -> a node, or undefined where the usual notice will do.
   */
  constructor({ tab, fields, cleared, words, problemWith, send, welcome, failure = () => {} }) {
    Object.assign(this, { tab, fields, cleared, words, problemWith, send, welcome, failure });
    this.required = Object.keys(fields)[0];
  }

  /** What stands in the inputs, without space around it. */
  parameters() {
    const named = Object.entries(this.fields);
    return Object.fromEntries(named.map(([name, id]) => [name, byId(id).value.trim()]));
  }

  /** Show nodes in place of the result; null is none. */
  show(...nodes) {
    byId(`${this.tab}-result`).replaceChildren(...nodes.filter(Boolean));
  }

  /** Whether nothing was asked for. */
  get isEmpty() {
    return !this.#shown && !this.#running;
  }

  /** What is shown may no longer be so: the next arrival asks again. */
  forget() {
    this.#shown = "";
  }

  /** Show what an address names: a request is sent, none is the empty page. */
  arrive(params, again) {
    for (const [name, id] of Object.entries(this.fields)) byId(id).value = params[name] ?? "";
    const place = address(this.tab, this.parameters());
    if (!params[this.required]) {
      this.#running?.abort();
      this.forget();
      this.show(this.welcome());
    } else if (place !== this.#shown || again) {
      this.#shown = place;
      this.#request(this.parameters());
    }
  }

  /** Listen to the form. */
  setUp() {
    byId(`${this.tab}-form`).addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    byId(this.fields[this.required]).addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Go to the address of what stands in the inputs, or say what is wrong with it. */
  submit() {
    const params = this.parameters();
    if (this.problemWith(params)) this.#request(params);
    else go(address(this.tab, params));
  }

  async #request(params) {
    this.#running?.abort();
    const problem = this.problemWith(params);
    if (problem) {
      this.forget(); // the address may still name what was shown before
      this.show(errorNotice({ message: problem }, this.words.nothing));
      return;
    }
    const mine = new AbortController();
    this.#running = mine;
    this.#setBusy(true);
    try {
      this.show(...(await this.send(params, mine.signal)));
    } catch (error) {
      if (error.name !== "AbortError") {
        this.show(this.failure(error) ?? errorNotice(error, this.words.failed));
      }
      if (this.#running === mine) this.forget(); // a later request is to be shown otherwise
    } finally {
      if (this.#running === mine) {
        this.#running = null;
        this.#setBusy(false);
      }
    }
  }

  #setBusy(isBusy) {
    byId(`panel-${this.tab}`).classList.toggle("busy", isBusy);
    byId(`${this.tab}-result`).setAttribute("aria-busy", String(isBusy));
    byId(`${this.tab}-button`).textContent = isBusy ? this.words.busy : this.words.ready;
  }

  #onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (this.#running) this.#running.abort();
      else for (const id of this.cleared) byId(id).value = "";
    }
  }
}
