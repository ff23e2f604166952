// Offsets count code points, as the server does; a JavaScript string counts UTF-16 units.

/** Return where the code point number `points` begins in UTF-16 units (the end, past the last). */
export function unitIndex(text, points, from = { points: 0, units: 0 }) {
  let { units } = from;
  for (let left = points - from.points; left > 0 && units < text.length; left -= 1) {
    units += text.codePointAt(units) > 0xffff ? 2 : 1;
  }
  return units;
}

/** Return the length of a text in code points. */
export function countPoints(text) {
  return [...text].length;
}

/**
 * Return nodes for a text with one range of code points wrapped by `wrap`.
 * A range that is empty or outside leaves the text as it is.
 */
export function withRange(text, start, end, wrap) {
  if (!(end > start) || start < 0) return [document.createTextNode(text)];
  const first = unitIndex(text, start);
  const last = unitIndex(text, end, { points: start, units: first });
  if (first >= last) return [document.createTextNode(text)];
  const parts = [text.slice(0, first), wrap(text.slice(first, last)), text.slice(last)];
  return parts
    .filter((part) => part !== "")
    .map((part) => (typeof part === "string" ? document.createTextNode(part) : part));
}
