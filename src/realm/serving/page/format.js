// Numbers as an instrument shows them.

const MINUS = "\u2212";

/** Return a probability: 0.720, 1.1e-14. */
export function probability(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (value === 0 || value >= 0.001) return value.toFixed(3);
  return value.toExponential(1).replace("-", MINUS);
}

/** Return a number with its sign: +2.54, −0.52. */
export function signed(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : "+") + text;
}

/** Return a measured number in at most five characters or so. */
export function compact(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) {
    return value.toExponential(1).replaceAll("-", MINUS);
  }
  const digits = Number.isInteger(value) ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  return value.toFixed(digits).replace("-", MINUS);
}

/** Return the number of a tick, as short as it can be. */
export function tickLabel(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5))
    return value.toExponential().replaceAll("-", MINUS);
  return String(value).replace("-", MINUS);
}

/** Return a count with thin spaces between thousands. */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

/** Return "1 passage", "2 passages". */
export function counted(value, noun, plural = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** Return a moment as people say it; the exact one belongs beside it. */
export function when(iso, now = Date.now()) {
  const seconds = (now - Date.parse(iso)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return iso.slice(0, 10);
}
