// Puts numbers and tables on the page. What has not changed is left alone, so that nothing flickers.

const NUMBER = new Intl.NumberFormat("en");
const PERCENT = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

export const byId = (id) => document.getElementById(id);
export const number = (value) => (value === null || value === undefined ? "–" : NUMBER.format(value));
export const percent = (value) => (value === null || value === undefined ? "–" : PERCENT.format(value));
export const between = (users) => (users ? `${number(users.low)} to ${number(users.high)}` : "");
export const seconds = (text) => Date.parse(text) / 1000;

/** Sets the text of an element, where it is another one. */
export function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

/** An element with a text or children, and attributes. */
export function make(name, content = "", attributes = {}) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  for (const each of Array.isArray(content) ? content : [content]) element.append(each);
  return element;
}

/** Shows rows of texts or elements as a table; the first of each row is its heading. */
export function setTable(id, caption, heads, rows) {
  const drawn = JSON.stringify([heads, rows.map((row) => row.map((cell) => cell.outerHTML ?? cell))]);
  const place = byId(id);
  if (place.dataset.drawn === drawn) return;
  place.dataset.drawn = drawn;
  const head = make("thead", make("tr", heads.map((text) => make("th", text, { scope: "col" }))));
  const body = make(
    "tbody",
    rows.map((row) =>
      make("tr", row.map((cell, index) => (cell instanceof HTMLTableCellElement ? cell : index ? make("td", cell) : make("th", cell, { scope: "row" })))),
    ),
  );
  place.replaceChildren(make("table", [make("caption", caption, { class: "quiet" }), head, body]));
}

/** Formats a time in a zone: `2016-07-11 13:39`, or shorter. */
export function clock(zone, style = "minute") {
  const parts = { minute: { dateStyle: "medium", timeStyle: "short" }, time: { timeStyle: "short" }, day: { dateStyle: "medium" } };
  const format = new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...parts[style] });
  return (text) => format.format(new Date(text));
}

/** A time as an input takes it, by the clocks of a zone: `2016-07-11T13:39`. */
export function inputTime(zone, instant) {
  const options = { timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
  const parts = new Intl.DateTimeFormat("en-CA", options).formatToParts(instant);
  const found = Object.fromEntries(parts.map((part) => [part.type, part.value]));
  return `${found.year}-${found.month}-${found.day}T${found.hour}:${found.minute}`;
}
