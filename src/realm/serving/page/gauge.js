// A scale from 0 to 1 with a needle, and a notch where answers begin to count.

import { el } from "./dom.js";
import { probability } from "./format.js";

const TICKS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

function notch(threshold) {
  const side = threshold > 0.8 ? "left" : "right";
  const label = `threshold ${probability(threshold)}`;
  return el("span", { class: `gauge-notch ${side}`, "--at": threshold }, el("span", {}, label));
}

/** Return a scale that shows a probability, and the threshold below which nothing is said. */
export function gauge(value, threshold) {
  const text =
    `probability ${probability(value)}` +
    (threshold > 0 ? `, threshold ${probability(threshold)}` : "");
  return el(
    "div",
    {
      class: `gauge${value < threshold ? " below" : ""}`,
      role: "meter",
      "aria-label": "Probability of the answer",
      "aria-valuemin": 0,
      "aria-valuemax": 1,
      "aria-valuenow": value.toFixed(4),
      "aria-valuetext": text,
      "--p": value,
    },
    ...TICKS.map((tick) =>
      el(
        "span",
        { class: tick % 0.5 === 0 ? "gauge-tick long" : "gauge-tick", "--at": tick },
        tick % 0.5 === 0 ? el("span", {}, String(tick)) : null,
      ),
    ),
    el("span", { class: "gauge-fill" }),
    el("span", { class: "gauge-needle" }),
    threshold > 0 ? notch(threshold) : null,
  );
}

/** Return a bar for a share of 1; the number itself stands beside it. */
export function bar(share) {
  return el(
    "span",
    { class: "bar", "aria-hidden": "true" },
    el("span", { class: "bar-fill", "--p": Math.max(0, Math.min(1, share)) }),
  );
}
