// One chart, drawn by hand: curves over steps, refreshes as ticks, a cursor that reads values.

import { el, svg } from "./dom.js";
import { compact, count, tickLabel } from "./format.js";
import { niceTicks, place, smooth, thin, valueAt } from "./scales.js";

const HEIGHT = 208;
const EDGE = { top: 14, right: 12, bottom: 26, left: 46 };
const FEW = 40;

export class Chart {
  /** `lines` are [metric, label]; `onMove(step)` is called as the cursor moves, null as it leaves. */
  constructor(measure, lines, onMove) {
    this.measure = measure;
    this.lines = lines.map(([name, label], number) => ({ name, label, number, points: [] }));
    this.onMove = onMove;
    this.cursor = null;
    this.refreshes = [];
    /** Every step that any line has a value at, in their order. */
    this.steps = [];
    this.key = el("ul", { class: "plain key" });
    this.picture = svg("svg", {
      class: "plot",
      tabindex: 0,
      role: "slider",
      "aria-label": `${measure.title}, by step`,
      "aria-orientation": "horizontal",
      onpointermove: (event) => this.onPointer(event),
      onpointerleave: () => this.onMove(null),
      onkeydown: (event) => this.onKey(event),
      onblur: () => this.onMove(null),
    });
    this.element = el(
      "section",
      { class: "chart" },
      el(
        "header",
        { class: "chart-head" },
        el(
          "h2",
          { class: "chart-title" },
          measure.title,
          measure.unit ? el("span", { class: "unit" }, ` ${measure.unit}`) : null,
        ),
        this.key,
      ),
      this.picture,
    );
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.element);
  }

  stop() {
    this.watcher.disconnect();
  }

  update(series, refreshes) {
    for (const line of this.lines) line.points = series[line.name] ?? [];
    this.refreshes = refreshes;
    const all = this.lines.flatMap(({ points }) => points.map(([step]) => step));
    this.steps = [...new Set(all)].sort((one, other) => one - other);
    this.draw();
  }

  range() {
    if (this.measure.unitInterval) return [0, 1];
    const values = this.lines
      .flatMap(({ points }) => points.map(([, value]) => value))
      .filter(Number.isFinite);
    if (this.measure.zero) values.push(0);
    const [low, high] = values.reduce(
      ([least, most], value) => [Math.min(least, value), Math.max(most, value)],
      [Infinity, -Infinity],
    );
    if (!Number.isFinite(low)) return [0, 1];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  }

  draw() {
    const width = this.picture.clientWidth || this.element.clientWidth;
    const { steps } = this;
    if (!width || !steps.length) return;
    const height = this.picture.clientHeight || HEIGHT;
    const yTicks = niceTicks(...this.range(), 4);
    const xTicks = niceTicks(
      Math.min(steps[0], 0),
      Math.max(steps[steps.length - 1], 1),
      width < 420 ? 4 : 6,
    ).filter((tick) => Number.isInteger(tick) && tick <= steps[steps.length - 1]);
    this.x = place(
      [Math.min(steps[0], 0), Math.max(steps[steps.length - 1], 1)],
      [EDGE.left, width - EDGE.right],
    );
    this.y = place(
      [Math.min(this.range()[0], yTicks[0]), Math.max(this.range()[1], yTicks[yTicks.length - 1])],
      [height - EDGE.bottom, EDGE.top],
    );
    this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.hand = svg("g", { class: "hand" });
    this.picture.replaceChildren(
      ...this.frame(width, height, xTicks, yTicks),
      ...this.refreshTicks(height),
      ...this.lines.flatMap((line) => this.curve(line)),
      this.hand,
    );
    this.setCursor(this.cursor);
  }

  frame(width, height, xTicks, yTicks) {
    const bottom = height - EDGE.bottom;
    return [
      ...yTicks.map((tick) =>
        svg("line", {
          class: tick === 0 ? "grid zero" : "grid",
          x1: EDGE.left,
          x2: width - EDGE.right,
          y1: this.y(tick),
          y2: this.y(tick),
        }),
      ),
      ...yTicks.map((tick) =>
        svg("text", { class: "y-label", x: EDGE.left - 8, y: this.y(tick) + 4 }, tickLabel(tick)),
      ),
      svg("line", { class: "axis", x1: EDGE.left, x2: width - EDGE.right, y1: bottom, y2: bottom }),
      ...xTicks.map((tick) =>
        svg("line", {
          class: "axis",
          x1: this.x(tick),
          x2: this.x(tick),
          y1: bottom,
          y2: bottom + 4,
        }),
      ),
      ...xTicks.map((tick) =>
        svg("text", { class: "x-label", x: this.x(tick), y: bottom + 18 }, count(tick)),
      ),
    ];
  }

  refreshTicks(height) {
    const bottom = height - EDGE.bottom;
    return this.refreshes.map((step) =>
      svg(
        "g",
        { class: "refresh" },
        svg("title", {}, `refresh at step ${count(step)}`),
        svg("line", { x1: this.x(step), x2: this.x(step), y1: EDGE.top - 4, y2: bottom }),
        svg("path", { d: `M${this.x(step) - 4} ${EDGE.top - 10}h8l-4 6z` }),
      ),
    );
  }

  path(points) {
    let [d, y] = ["", 0];
    points
      .filter(([, value]) => Number.isFinite(value))
      .forEach(([step, value], number) => {
        const [x, next] = [this.x(step).toFixed(1), this.y(value).toFixed(1)];
        d +=
          number && this.measure.steps ? `V${y}H${x}V${next}` : `${number ? "L" : "M"}${x} ${next}`;
        y = next;
      });
    return d;
  }

  curve({ points, number, name }) {
    const kind = `curve c${number % 4}`;
    const isFew = points.length <= FEW || this.measure.steps;
    const isHeldOut = name.startsWith("eval/");
    const strong = svg("path", {
      class: kind,
      d: this.path(thin(isFew ? points : smooth(points))),
    });
    if (!isFew)
      return [svg("path", { class: `${kind} faint`, d: this.path(thin(points)) }), strong];
    if (!isHeldOut) return [strong];
    return [
      strong,
      ...points.map(([step, value]) =>
        svg("circle", { class: `dot c${number % 4}`, cx: this.x(step), cy: this.y(value), r: 3 }),
      ),
    ];
  }

  /** Read all values at a step (null: the last ones). */
  setCursor(step) {
    this.cursor = step;
    const { steps } = this;
    if (!this.x || !steps.length) return;
    const at = step ?? steps[steps.length - 1];
    const read = this.lines.map((line) => ({ ...line, value: valueAt(line.points, at) }));
    this.key.replaceChildren(
      ...read.map(({ label, number, value }) =>
        el(
          "li",
          {},
          el("span", { class: `swatch c${number % 4}`, "aria-hidden": "true" }),
          `${label} `,
          el("b", {}, compact(value)),
        ),
      ),
      el("li", { class: "quiet" }, step === null ? "last" : `step ${count(at)}`),
    );
    this.picture.setAttribute("aria-valuemin", steps[0]);
    this.picture.setAttribute("aria-valuemax", steps[steps.length - 1]);
    this.picture.setAttribute("aria-valuenow", at);
    const words = read.map(({ label, value }) => `${label} ${compact(value)}`).join(", ");
    this.picture.setAttribute("aria-valuetext", `step ${at}: ${words}`);
    this.drawHand(step === null ? null : at, read);
  }

  drawHand(at, read) {
    if (at === null) {
      this.hand.replaceChildren();
      return;
    }
    const [bottom, top] = [this.picture.viewBox.baseVal.height - EDGE.bottom, EDGE.top];
    const dots = read
      .filter(({ value }) => Number.isFinite(value))
      .map(({ value, number }) =>
        svg("circle", { class: `dot c${number % 4}`, cx: this.x(at), cy: this.y(value), r: 4 }),
      );
    this.hand.replaceChildren(
      svg("line", { x1: this.x(at), x2: this.x(at), y1: top, y2: bottom }),
      ...dots,
    );
  }

  onPointer(event) {
    const { steps } = this;
    if (!this.x || !steps.length) return;
    const at = event.clientX - this.picture.getBoundingClientRect().left;
    const near = (one, other) =>
      Math.abs(this.x(other) - at) < Math.abs(this.x(one) - at) ? other : one;
    this.onMove(steps.reduce(near));
  }

  onKey(event) {
    const { steps } = this;
    const here =
      this.cursor === null ? steps.length - 1 : steps.findLastIndex((step) => step <= this.cursor);
    const big = Math.max(1, Math.round(steps.length / 10));
    const moves = {
      ArrowLeft: here - 1,
      ArrowRight: here + 1,
      ArrowDown: here - 1,
      ArrowUp: here + 1,
      PageDown: here - big,
      PageUp: here + big,
      Home: 0,
      End: steps.length - 1,
    };
    if (event.key === "Escape") this.onMove(null);
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.onMove(steps[Math.max(0, Math.min(steps.length - 1, moves[event.key]))]);
  }
}
