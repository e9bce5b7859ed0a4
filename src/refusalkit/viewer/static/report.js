import { $, ask, dollars, duration, number, poll } from "./dom.js";

const report = $("report");
const ids = report.dataset.runs.split(" ");
const query = ids.map((id) => `run=${id}`).join("&");
let version = Number(report.dataset.version);

// The same page again; of it the sections are taken. The browser parses it, and runs nothing in it.
function fresh() {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", window.location.pathname + window.location.search);
    request.responseType = "document";
    request.onload = () => (request.response ? resolve(request.response) : reject(new Error("no page")));
    request.onerror = () => reject(new Error("no answer"));
    request.send();
  });
}

async function renew() {
  const page = await fresh();
  const there = page.getElementById("report");
  if (!there) return;
  version = Number(there.dataset.version);
  const open = new Set([...document.querySelectorAll("#parts details[open] > summary")].map((one) => one.textContent));
  const focused = document.activeElement?.id;
  const at = window.scrollY;
  $("parts").replaceChildren(...[...there.querySelector("#parts").childNodes].map((node) => document.adoptNode(node)));
  for (const summary of document.querySelectorAll("#parts details > summary")) {
    if (open.has(summary.textContent)) summary.parentElement.open = true;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  window.scrollTo(0, at);
}

function tell(runs) {
  const running = runs.filter((run) => run.state === "running");
  const live = $("live");
  live.hidden = running.length === 0;
  const words = running.map((run) => {
    const said = [];
    if (runs.length > 1) said.push(run.model);
    const done = run.pace?.n_done ?? run.n_scored;
    said.push(`running: ${number(done ?? 0)} of ${number(run.n_units)}`);
    if (run.pace?.eta_s) said.push(`${duration(run.pace.eta_s)} left`);
    if (run.cost_usd) said.push(`${dollars(run.cost_usd)} so far`);
    return said.join(" \u00b7 ");
  });
  const text = words.join("  \u2014  ");
  if (live.textContent !== text) live.textContent = text;
}

poll(async () => {
  let found;
  try {
    found = await ask(`/api/report?${query}`);
  } catch (problem) {
    $("live").hidden = false;
    $("live").textContent = problem.message;
    return 10;
  }
  tell(found.runs);
  if (found.version !== version) await renew();
  if (document.querySelector("[data-waiting]")) return 0.5;
  return found.runs.some((run) => run.state === "running") ? 1.5 : 5;
});
