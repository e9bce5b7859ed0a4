import { $, ask, day, dollars, duration, fill, h, number, percent, poll } from "./dom.js";

const table = $("runs");
const body = table.tBodies[0];
const form = $("filters");
const heads = [...table.tHead.querySelectorAll("th")];
const picked = new Set();
let runs = [];
let sort = { key: "started", down: true };
const shownRows = new Map();

const order = { running: 0, stopped: 1, unreadable: 1, "not begun": 2, done: 3 };
const lines = { crossed: 0, inconclusive: 1, held: 2 };
const keys = {
  model: (run) => `${run.model} ${run.set}`.toLowerCase(),
  judge: (run) => run.judge.toLowerCase(),
  done: (run) => 10 - order[run.state] + share(run),
  willingness: (run) => run.willingness?.value ?? -1,
  hard_lines: (run) => lines[run.hard_lines] ?? 3,
  cost: (run) => run.cost_usd ?? -1,
  started: (run) => run.started ?? "",
};

const nDone = (run) => run.pace?.n_done ?? run.n_scored ?? 0;
const share = (run) => (run.n_units ? Math.min(1, nDone(run) / run.n_units) : 0);

for (const head of heads) {
  const button = h("button", { type: "button", onclick: () => sortBy(head) }, ...head.childNodes);
  head.append(button);
  if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
}

function sortBy(head) {
  const key = head.dataset.key;
  const first = "down" in head.dataset;
  sort = { key, down: sort.key === key ? !sort.down : first };
  for (const other of heads) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
  show();
}

function fits(run) {
  const asked = Object.fromEntries(new FormData(form));
  if (asked.model && run.model !== asked.model) return false;
  if (asked.set && run.set !== asked.set) return false;
  if (asked.judge && run.judge !== asked.judge) return false;
  if (asked.since && !(Date.now() - Date.parse(run.started) < asked.since * 864e5)) return false;
  const text = `${run.model} ${run.set} ${run.judge} ${run.name} ${run.run} ${run.state}`.toLowerCase();
  return asked.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function choices(name, values) {
  const select = form.elements[name];
  const known = new Set([...select.options].map((option) => option.value));
  for (const value of [...new Set(values)].sort()) {
    if (!known.has(value)) select.append(h("option", { value }, value));
  }
}

function progress(run) {
  const words = [];
  if (run.state === "running") {
    words.push(`${number(nDone(run))} of ${number(run.n_units)}`);
    const pace = run.pace;
    if (pace?.eta_s) words.push(`${duration(pace.eta_s)} left`);
    else words.push("running");
  } else if (run.error) {
    return [h("span", { class: "state bad" }, "cannot be read"), h("span", { class: "below", title: run.error }, run.error)];
  } else if (run.n_scored === null) {
    words.push(run.busy ? "reading" : "", `${number(run.n_units)} units`);
  } else {
    const all = run.state === "done" && run.n_scored === run.n_units;
    words.push(all ? `${number(run.n_units)} scored` : `${number(run.n_scored)} of ${number(run.n_units)} scored`);
    if (run.state === "stopped") words.push(stopped(run));
    if (run.state === "not begun" && !run.n_scored) words.push("not begun");
  }
  const meter = h("progress", { max: 1, value: share(run), "aria-label": `${Math.round(share(run) * 100)} percent done` });
  const told = h("span", { class: `state ${run.state.replace(" ", "-")}` }, words.filter(Boolean).join(" \u00b7 "));
  return run.state === "running" ? [told, meter] : [told];
}

const why = { interrupted: "interrupted", max_cost: "cost limit reached", batches: "at the provider" };
const stopped = (run) => why[run.ended] ?? (run.ended ? `stopped: ${run.ended}` : "stopped");

const mark = "http://www.w3.org/2000/svg";
function interval(estimate) {
  if (estimate.low === null) return null;
  const svg = document.createElementNS(mark, "svg");
  svg.setAttribute("viewBox", "0 0 100 10");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "interval");
  svg.setAttribute("aria-hidden", "true");
  const wide = Math.max(estimate.high - estimate.low, 0.4);
  for (const [name, x, y, width, height] of [
    ["rail", 0, 4, 100, 2],
    ["range", estimate.low, 2.5, wide, 5],
    ["here", Math.min(estimate.value - 0.5, 99), 0, 1, 10],
  ]) {
    const rect = document.createElementNS(mark, "rect");
    rect.setAttribute("class", name);
    for (const [key, value] of Object.entries({ x, y, width, height })) rect.setAttribute(key, value);
    svg.append(rect);
  }
  return svg;
}

function willingness(run) {
  const estimate = run.willingness;
  if (!estimate || estimate.value === null) return run.busy ? h("span", { class: "soft" }, "\u2026") : "\u2013";
  return [
    h("span", { class: "figure" }, percent(estimate.value)),
    interval(estimate),
    h("span", { class: "below" }, `${percent(estimate.low)} to ${percent(estimate.high)}`),
  ];
}

function hardLines(run) {
  if (run.has_hard_lines === false) return h("span", { class: "soft" }, "none");
  if (!run.hard_lines) return run.busy ? h("span", { class: "soft" }, "\u2026") : "\u2013";
  const leaks = run.n_leaks;
  return [
    h("span", { class: `line ${run.hard_lines}` }, run.hard_lines),
    leaks ? h("a", { class: "below", href: `/run/${run.id}/read?show=leaks` }, `${number(leaks)} ${leaks === 1 ? "leak" : "leaks"}`) : null,
  ];
}

const cost = (run) => (run.cost_usd === null && run.n_scored === null && !run.error ? "\u2026" : dollars(run.cost_usd));

function row(run) {
  const box = h("input", {
    type: "checkbox",
    "aria-label": `Pick ${run.model}, ${run.name}`,
    onchange: (event) => {
      event.target.checked ? picked.add(run.id) : picked.delete(run.id);
      showPicked();
    },
  });
  box.checked = picked.has(run.id);
  const known = run.state !== "unreadable";
  const judge = run.judge_model ? [run.judge_name, h("span", { class: "below" }, run.judge_model)] : [run.judge || "\u2013"];
  return h(
    "tr",
    { class: run.state === "running" ? "is-running" : "" },
    h("td", { class: "pick" }, known ? box : null),
    h(
      "th",
      { scope: "row" },
      known ? h("a", { class: "model", href: `/run/${run.id}` }, run.model) : h("span", { class: "model" }, run.name),
      known ? h("span", { class: "below" }, `${run.set} \u00b7 ${number(run.n_prompts)} \u00d7 ${run.trials} \u00b7 ${run.name}`) : null,
    ),
    h("td", { class: "words", "data-name": "Judge" }, judge),
    h("td", { class: "words", "data-name": "Progress" }, progress(run)),
    h("td", { class: "words willing", "data-name": "Willingness, %" }, willingness(run)),
    h("td", { class: "words", "data-name": "Hard lines" }, hardLines(run)),
    h("td", { "data-name": "Cost" }, known ? cost(run) : "\u2013"),
    h("td", { "data-name": "Started" }, day(run.started)),
  );
}

function show() {
  const visible = runs.filter(fits);
  const of = keys[sort.key];
  visible.sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    const apart = x < y ? -1 : x > y ? 1 : 0;
    return sort.down ? -apart : apart;
  });
  const rows = visible.map((run) => {
    const said = JSON.stringify(run);
    const known = shownRows.get(run.id);
    if (known?.said === said) return known.row;
    const made = row(run);
    shownRows.set(run.id, { said, row: made });
    return made;
  });
  // Rows that stay are not touched, so that the focus stays too.
  const same = rows.length === body.rows.length && rows.every((one, n) => one === body.rows[n]);
  if (!same) {
    const focused = document.activeElement;
    const at = focused && body.contains(focused) ? [...body.rows].indexOf(focused.closest("tr")) : -1;
    const kind = focused?.tagName;
    fill(body, rows);
    if (at >= 0 && !document.contains(focused)) body.rows[at]?.querySelector(kind === "INPUT" ? "input" : "a")?.focus();
    else if (at >= 0) focused.focus();
  }
  const running = runs.filter((run) => run.state === "running").length;
  $("summary").textContent = [
    visible.length === runs.length ? `${number(runs.length)} ${runs.length === 1 ? "run" : "runs"}` : `${number(visible.length)} of ${number(runs.length)} runs`,
    running ? `${running} running` : "",
    `in ${folder}`,
  ].filter(Boolean).join(" \u00b7 ");
  $("nothing").hidden = visible.length > 0;
  $("nothing").textContent = runs.length ? "No run passes these filters." : "There is no run here yet. Try: refusalkit run demo/mixed";
  table.hidden = runs.length === 0;
}

function showPicked() {
  const ids = [...picked];
  $("picked").hidden = ids.length === 0;
  $("picked-count").textContent = `${ids.length} picked`;
  const compare = $("compare");
  compare.href = `/compare?${ids.map((id) => `run=${id}`).join("&")}`;
  compare.textContent = ids.length === 1 ? "Open" : `Compare ${ids.length}`;
  if (ids.length === 1) compare.href = `/run/${ids[0]}`;
  $("beside").hidden = ids.length !== 2;
  if (ids.length === 2) $("beside").href = `/run/${ids[0]}/read?beside=${ids[1]}`;
}

let folder = "";
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
$("unpick").addEventListener("click", () => {
  picked.clear();
  for (const box of body.querySelectorAll("input")) box.checked = false;
  showPicked();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest?.("input, select")) return;
  event.preventDefault();
  form.elements.q.focus();
});

poll(async () => {
  try {
    const found = await ask("/api/runs");
    ({ runs, folder } = found);
  } catch (problem) {
    $("summary").textContent = problem.message;
    return 10;
  }
  for (const id of [...picked]) if (!runs.some((run) => run.id === id)) picked.delete(id);
  choices("model", runs.map((run) => run.model));
  choices("set", runs.map((run) => run.set));
  choices("judge", runs.map((run) => run.judge));
  show();
  showPicked();
  if (runs.some((run) => run.busy)) return 0.5;
  return runs.some((run) => run.state === "running") ? 1.5 : 6;
});
