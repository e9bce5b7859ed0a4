import { $, ask, fill, h, isForPage, keysDialog, number, poll } from "./dom.js";
import { details, label, pressure, prompt, response, verdicts, whyUnscored } from "./unit.js";

const reader = $("reader");
const run = reader.dataset.run;
const form = $("filters");
const list = $("units");
const SIZE = 50;
const NAMES = ["q", "show", "label", "category", "danger", "outcome", "order", "beside"];

let offset = 0;
let total = 0;
let rows = [];
let current = null; // the unit that is shown
let uncovered = null; // the unit that was uncovered, and no other
let asking = null;
let reading = null;
let filled = false;

// The address holds everything: filters and the unit. It is a link.

function asked() {
  const values = new URLSearchParams();
  for (const name of NAMES) {
    const value = form.elements[name].value.trim();
    if (value && !(name === "order" && value === "leaks")) values.set(name, value);
  }
  return values;
}

function address(unit = current) {
  const values = asked();
  if (unit) values.set("unit", unit);
  const text = values.toString();
  return window.location.pathname + (text ? `?${text}` : "");
}

function remember(push = false) {
  window.history[push ? "pushState" : "replaceState"](null, "", address());
}

function restore() {
  const values = new URLSearchParams(window.location.search);
  for (const name of NAMES) {
    const field = form.elements[name];
    const value = values.get(name) ?? (name === "order" ? "leaks" : "");
    if (field.tagName === "SELECT" && ![...field.options].some((one) => one.value === value)) {
      field.append(h("option", { value }, value));
    }
    field.value = value;
  }
  current = values.get("unit");
}

// The list

async function load({ at = offset, pick = null } = {}) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  const values = asked();
  values.set("offset", at);
  values.set("limit", SIZE);
  if (!filled) values.set("facets", "1");
  let found;
  try {
    found = await ask(`/api/run/${run}/units?${values}`, { signal });
  } catch (problem) {
    if (problem.name === "AbortError") return true;
    $("count").textContent = problem.message;
    return true;
  }
  if (found.facets && found.whole) filled = true;
  if (found.facets) choices(found);
  offset = found.offset;
  total = found.n;
  rows = found.rows;
  showList(found);
  if (pick !== null && rows.length) open(rows[pick < 0 ? rows.length + pick : pick].unit);
  return found.whole && found.searched >= 1;
}

const thousands = (n) => number(n);

function showList(found) {
  const words = [];
  const filtered = [...asked().keys()].some((name) => !["order", "beside"].includes(name));
  words.push(`${thousands(total)} ${total === 1 ? "unit" : "units"}`);
  if (filtered) words[0] = `${thousands(total)} of ${thousands(found.n_read)}`;
  else if (found.whole && found.n_read < found.n_all) words[0] = `${thousands(total)} of ${thousands(found.n_all)} units so far`;
  if (!found.whole) words.push(`reading the rest of ${thousands(found.n_all)}`);
  else if (found.searched < 1) words.push(`searching, ${Math.round(100 * found.searched)} %`);
  if (found.error) words.push(found.error);
  const text = words.join(" \u00b7 ");
  if ($("count").textContent !== text) $("count").textContent = text;
  const pages = Math.max(1, Math.ceil(total / SIZE));
  $("pager").hidden = pages < 2;
  $("pages").textContent = `${thousands(Math.floor(offset / SIZE) + 1)} of ${thousands(pages)}`;
  $("newer").disabled = offset === 0;
  $("older").disabled = offset + SIZE >= total;
  $("clear").hidden = !filtered;
  // Last, when all around the list has its size: what is marked is scrolled to.
  const held = list.contains(document.activeElement);
  fill(list, rows.map(entry));
  if (held) mark()?.focus({ preventScroll: true });
  mark();
  const none = total === 0 && current === null;
  reader.classList.toggle("has-none", none);
  if (none) {
    $("empty").hidden = false;
    $("empty").textContent = form.elements.show.value === "flipped" && !form.elements.beside.value ? "Pick the run beside to see what flipped." : "No unit passes these filters.";
  }
}

function entry(row) {
  const notes = [];
  if (row.differ) notes.push("judges differ");
  if (row.outcome !== "answered") notes.push(row.outcome.replace("_", " "));
  if (row.framing) notes.push(row.framing);
  if (row.twin) notes.push("safe twin");
  return h(
    "li",
    {},
    h(
      "a",
      { href: address(row.unit), dataset: { unit: row.unit }, onclick: (event) => { if (!event.metaKey && !event.ctrlKey && !event.shiftKey) { event.preventDefault(); open(row.unit, { focus: true }); } } },
      h("span", { class: "unit-name" }, row.shown),
      h("span", { class: "unit-more" }, label(row, { leak: row.leak }), h("span", { class: "unit-notes" }, [row.title + (row.hard_line ? " (hard line)" : ""), ...notes].join(" \u00b7 "))),
    ),
  );
}

function mark() {
  let here = null;
  for (const link of list.querySelectorAll("a")) {
    const is = link.dataset.unit === current;
    if (is) here = link;
    is ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    link.href = address(link.dataset.unit);
  }
  here?.scrollIntoView({ block: "nearest" });
  return here;
}

function choices({ facets, titles, judges }) {
  const shows = [
    ["leaks", "Leaks"],
    ["hard", "Hard lines"],
    ["ordinary", "Ordinary requests"],
    ["differ", "Judges differ"],
    ["twins", "Safe twins"],
    ["framed", "Framed requests"],
  ];
  const show = form.elements.show;
  const first = [h("option", { value: "" }, "Everything")];
  const counted = shows.filter(([name]) => facets.show[name]).map(([name, word]) => h("option", { value: name }, `${word} (${thousands(facets.show[name])})`));
  const more = [h("option", { value: "flipped" }, "Flipped against the run beside")];
  keep(show, [...first, ...counted, ...more]);
  void judges;
  keep(form.elements.label, [h("option", { value: "" }, "Any label"), ...counts(facets.label)]);
  keep(form.elements.category, [h("option", { value: "" }, "Any category"), ...counts(facets.category, (slug) => titles[slug] ?? slug)]);
  keep(form.elements.danger, [h("option", { value: "" }, "Any danger"), ...counts(facets.danger, (level) => `Danger ${level}`)]);
  keep(form.elements.outcome, [h("option", { value: "" }, "Any outcome"), ...counts(facets.outcome, (word) => word.replace("_", " "))]);
  form.elements.danger.closest("label").hidden = Object.keys(facets.danger).length === 0;
}

const counts = (of, name = (word) => word) => Object.entries(of).map(([word, n]) => h("option", { value: word }, `${name(word)} (${thousands(n)})`));

function keep(select, options) {
  const { value } = select;
  if (value && !options.some((one) => one.value === value)) options.push(h("option", { value }, value));
  fill(select, options);
  select.value = value;
}

// The unit

async function open(unit, { focus = false, push = false } = {}) {
  if (unit !== current) uncovered = null;
  current = unit;
  remember(push);
  mark();
  await show();
  if (focus) $("main").focus({ preventScroll: true });
}

async function show() {
  reading?.abort();
  reading = new AbortController();
  const unit = current;
  const values = asked();
  values.set("unit", unit);
  if (uncovered === unit) values.set("uncover", "1");
  let found;
  try {
    found = await ask(`/api/run/${run}/unit?${values}`, { signal: reading.signal });
  } catch (problem) {
    if (problem.name === "AbortError") return;
    $("unit").hidden = true;
    $("empty").hidden = false;
    const why = problem.message;
    fill($("empty"), `${why[0].toUpperCase()}${why.slice(1)}. `, h("button", { type: "button", class: "quiet phone-only", onclick: back }, "\u2039 Units"));
    reader.classList.add("has-unit");
    return;
  }
  if (unit !== current) return;
  render(found);
  // The list shows where it stands: a link may be to a unit of any page.
  if (found.place !== null && !rows.some((row) => row.unit === unit)) load({ at: found.place - (found.place % SIZE) });
  if (found.unit.prompt_state === "loading") window.setTimeout(() => unit === current && show(), 700);
}

function uncover() {
  uncovered = current;
  show().then(() => $("main").focus({ preventScroll: true }));
}

function render({ unit, beside, place, n }) {
  const two = beside !== undefined;
  const other = beside?.unit ?? null;
  const position = place === null ? "not among these filters" : `${thousands(place + 1)} of ${thousands(n)}`;
  const notes = [unit.category];
  if (unit.hard_line) notes.push("hard line");
  if (unit.danger) notes.push(`danger ${unit.danger}`);
  if (unit.framing) notes.push(`framing: ${unit.framing}`);
  if (unit.twin) notes.push(`safe twin of ${unit.twin}`);
  const head = h(
    "header",
    { class: "unit-head" },
    h("button", { type: "button", class: "quiet phone-only", onclick: back }, "\u2039 Units"),
    h("div", { class: "unit-title" }, h("h1", {}, unit.prompt_id, h("span", { class: "trial" }, ` trial ${unit.trial}`)), h("p", { class: "soft" }, notes.join(" \u00b7 "))),
    h(
      "div",
      { class: "unit-tools" },
      h("span", { class: "soft position" }, position),
      h("button", { type: "button", class: "quiet", id: "copy", title: "Copy a link to this unit (l)", onclick: copy }, "Link"),
      h("button", { type: "button", class: "quiet", title: "Previous (k)", "aria-label": "Previous unit", onclick: () => step(-1) }, "\u2039"),
      h("button", { type: "button", class: "quiet", title: "Next (j)", "aria-label": "Next unit", onclick: () => step(1) }, "\u203a"),
    ),
  );
  const trials =
    unit.trials.length > 1
      ? h(
          "p",
          { class: "trials" },
          h("span", { class: "soft" }, "Trials "),
          unit.trials.map((one) =>
            h("a", { href: address(one.unit), class: `trial-link ${one.label ?? "unscored"}${one.leak ? " leak" : ""}`, "aria-current": one.unit === unit.unit && "true", title: `trial ${one.trial}: ${one.label ?? whyUnscored(one.unscored)}`, onclick: (event) => { event.preventDefault(); open(one.unit); } }, String(one.trial)),
          ),
        )
      : null;
  const own = [response(unit, two ? reader.dataset.model : "Answer"), pressure(unit), verdicts(unit), details(unit)];
  const theirs = two
    ? other
      ? [response(other, beside.model), pressure(other), verdicts(other), details(other)]
      : [h("section", { class: "answer" }, h("h2", {}, beside.model), h("p", { class: "soft" }, "This run has no answer to this prompt and trial."))]
    : null;
  const asked_ = other && !unit.conversation && !unit.covered && other.conversation ? other : unit;
  const article = $("unit");
  fill(article, head, trials, prompt(asked_, uncover), two ? h("div", { class: "two" }, h("div", {}, own), h("div", {}, theirs)) : own);
  article.hidden = false;
  $("empty").hidden = true;
  reader.classList.add("has-unit");
  $("main").scrollTop = 0;
  document.title = `${unit.shown} \u00b7 refusalkit view`;
}

async function step(by) {
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.unit === current);
  if (at < 0 && current !== null) {
    // The unit stands on another page of the list, or on none.
    await load({ at: offset, pick: by > 0 ? 0 : -1 });
    return;
  }
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : at + by;
  if (next >= 0 && next < rows.length) await open(rows[next].unit);
  else if (next < 0 && offset > 0) await load({ at: Math.max(0, offset - SIZE), pick: -1 });
  else if (next >= rows.length && offset + SIZE < total) await load({ at: offset + SIZE, pick: 0 });
}

async function copy() {
  const link = new URL(address(), window.location.href).href;
  const button = $("copy");
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = "Copied";
  } catch {
    button.textContent = "It is in the address bar";
  }
  window.setTimeout(() => (button.textContent = "Link"), 1500);
}

function back() {
  reader.classList.remove("has-unit");
  const link = mark();
  current = null;
  remember();
  (link ?? form.elements.q).focus();
}

// What is done

let typing = 0;
const again = async () => {
  remember();
  offset = 0;
  renew();
  if (current !== null) await show();
};
form.addEventListener("input", (event) => {
  window.clearTimeout(typing);
  if (event.target.name === "show" && event.target.value === "flipped" && !form.elements.beside.value) {
    const first = form.elements.beside.options[1];
    if (first) form.elements.beside.value = first.value;
  }
  typing = window.setTimeout(again, event.target.name === "q" ? 180 : 0);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  list.querySelector("a")?.focus();
});
function clear() {
  for (const name of NAMES) if (!["order", "beside"].includes(name)) form.elements[name].value = "";
  again();
}
$("clear").addEventListener("click", clear);
$("more-filters").addEventListener("click", (event) => {
  const open_ = $("choices").classList.toggle("open");
  event.currentTarget.setAttribute("aria-expanded", String(open_));
});
$("newer").addEventListener("click", () => load({ at: Math.max(0, offset - SIZE) }));
$("older").addEventListener("click", () => load({ at: offset + SIZE }));
window.addEventListener("popstate", () => {
  restore();
  renew();
  if (current) show();
});

const help = keysDialog();
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === form.elements.q) {
    event.preventDefault(); // the browser would clear the field
    form.elements.q.blur();
    $("main").focus({ preventScroll: true });
    return;
  }
  if (!isForPage(event)) return;
  const does = {
    j: () => step(1),
    k: () => step(-1),
    "/": () => { form.elements.q.focus(); form.elements.q.select(); },
    "?": help,
    u: () => document.querySelector(".uncover")?.click(),
    l: () => current && copy(),
    b: back,
    x: clear,
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
});

// While the run is read, or searched, or at work, the list is asked for again.
restore();
const renew = poll(async () => {
  const settled = await load();
  if (current === null && rows.length && window.matchMedia("(min-width: 46.01rem)").matches) await open(rows[0].unit);
  return settled ? 15 : 0.7;
});
if (current) show();
