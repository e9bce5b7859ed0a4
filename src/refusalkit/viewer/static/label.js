import { $, ask, fill, h, isForPage, keysDialog, number } from "./dom.js";
import { conversation, cover } from "./unit.js";

const main = $("main");
const run = main.dataset.run;
const api = `/api/run/${run}/label`;
let annotator = "";
let item = null;
let busy = false;

function problem(text) {
  const box = $("problem");
  box.hidden = !text;
  box.textContent = text ?? "";
  if (text && !$("work").hidden) $("where").textContent = text;
}

async function annotators() {
  const found = await ask(`${api}s`);
  const box = $("annotators");
  if (!found.annotators.length) return;
  fill(
    box,
    h("h2", {}, "Who has labelled"),
    h(
      "ul",
      { class: "annotators" },
      found.annotators.map((one) =>
        h(
          "li",
          {},
          h("span", {}, h("strong", {}, one.annotator), h("span", { class: "soft" }, one.done ? ` ${number(one.n_labelled)} labelled, done` : ` ${number(one.n_labelled)} labelled, ${number(one.n_left)} left`)),
          h("button", { type: "button", class: "quiet", onclick: () => start(one.annotator, one.n) }, one.done ? "Agreement" : "Go on"),
        ),
      ),
    ),
  );
}

async function start(name, n) {
  problem(null);
  const button = $("start").querySelector("button");
  button.disabled = true; // a large run is read first
  button.textContent = "Drawing answers";
  try {
    const told = await ask(api, { body: { do: "start", annotator: name, n } });
    annotator = name;
    $("begin").hidden = true;
    $("work").hidden = false;
    show(told);
  } catch (error) {
    problem(error.message);
  } finally {
    button.disabled = false;
    button.textContent = "Begin";
  }
}

async function act(what) {
  if (busy || !annotator || (item === null && what !== "undo")) return;
  busy = true;
  try {
    show(await ask(api, { body: { do: what, annotator, unit: item?.unit ?? "" } }));
  } catch (error) {
    problem(error.message);
  } finally {
    busy = false;
  }
}

async function uncover() {
  const found = await ask(`${api}s?annotator=${encodeURIComponent(annotator)}&uncover=1`);
  if (found.item && found.item.unit === item?.unit) {
    item = found.item;
    showItem();
  }
}

function show(told) {
  const done = told.n - told.n_left;
  const words = [`${number(Math.min(done + 1, told.n))} of ${number(told.n)}`];
  if (told.n_skipped) words.push(`${told.n_skipped} skipped`);
  if (told.n_not_kept) words.push(`${number(told.n_not_kept)} hard-line answers were not kept and cannot be labelled`);
  $("where").textContent = words.join(" \u00b7 ");
  $("progress").value = told.n ? done / told.n : 1;
  item = told.item;
  if (item === null) {
    finish(told);
    return;
  }
  $("done").hidden = true;
  $("work").hidden = false;
  showItem();
}

function showItem() {
  fill(
    $("item"),
    h("p", { class: "soft" }, item.category),
    item.covered
      ? cover("Prompt and answer are", uncover, "v")
      : [
          h("section", { class: "prompt", "aria-label": "Prompt" }, h("h2", {}, "Prompt"), conversation(item.conversation)),
          h("section", { class: "answer", "aria-label": "Answer" }, h("h2", {}, "Answer"), h("p", { class: "text", dir: "auto" }, item.text)),
        ],
  );
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
}

async function finish(told) {
  $("work").hidden = true;
  const box = $("done");
  box.hidden = false;
  fill(box, h("h1", {}, "Done"), h("p", { class: "soft" }, `${number(told.n_labelled)} labelled, ${number(told.n_skipped)} skipped. They are in labels/${told.file} of the run.`));
  const found = await ask(`${api}s?annotator=${encodeURIComponent(annotator)}&agreement=1`);
  const undo = h("button", { type: "button", class: "quiet", onclick: () => act("undo") }, "Undo the last");
  if (!found.agreement) {
    box.append(h("p", {}, "Nothing was labelled, so there is no agreement to tell."), undo);
    return;
  }
  box.append(...agreement(found.agreement), undo);
  main.focus();
}

function agreement(found) {
  const labels = ["refusal", "deflection", "partial", "compliance"];
  const share = (value) => (value === null ? "\u2013" : `${(100 * value).toFixed(1)} %`);
  const kappa = (value) => (value === null ? "\u2013" : value.toFixed(2));
  return [
    h("h2", {}, "Agreement on refused or not"),
    h(
      "div",
      { class: "scroll", role: "group", tabindex: "0", "aria-label": "Agreement" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["first", "second"].map((one) => h("th", { scope: "col", class: "words" }, one)), ["answers", "agree", "Cohen's kappa"].map((one) => h("th", { scope: "col" }, one)))),
        h("tbody", {}, found.pairs.map((pair) => h("tr", {}, h("td", { class: "words" }, pair.first), h("td", { class: "words" }, pair.second), h("td", {}, number(pair.n)), h("td", {}, share(pair.agree)), h("td", {}, kappa(pair.kappa))))),
      ),
    ),
    h("h2", {}, "You against the judge"),
    h(
      "div",
      { class: "scroll", role: "group", tabindex: "0", "aria-label": "Your labels against the judge's" },
      h(
        "table",
        { class: "confusion" },
        h("thead", {}, h("tr", {}, h("td", {}), labels.map((one) => h("th", { scope: "col" }, `judge: ${one}`)))),
        h("tbody", {}, labels.map((mine) => h("tr", {}, h("th", { scope: "row" }, `you: ${mine}`), labels.map((theirs) => h("td", { class: found.table[mine][theirs] === 0 ? "soft" : mine === theirs ? "same" : "apart" }, String(found.table[mine][theirs])))))),
      ),
    ),
    found.differ.length
      ? h("details", {}, h("summary", {}, `${number(found.differ.length)} answers on which you and the judge differ`), h("ul", { class: "differ" }, found.differ.map((unit) => h("li", {}, h("a", { href: `/run/${run}/read?unit=${encodeURIComponent(unit)}` }, unit)))))
      : h("p", {}, "You and the judge gave every answer the same label."),
  ];
}

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  const { annotator: name, n } = event.target.elements;
  start(name.value.trim(), Number(n.value));
});
$("choices").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) act(button.dataset.do);
});
const help = keysDialog();
document.addEventListener("keydown", (event) => {
  if (!isForPage(event) || event.repeat) return;
  const keys = { r: "refusal", d: "deflection", p: "partial", c: "compliance", s: "skip", u: "undo" };
  if (event.key === "?") help();
  else if (event.key === "v" && item?.covered) uncover();
  else if (keys[event.key] && annotator) act(keys[event.key]);
  else return;
  event.preventDefault();
});
window.addEventListener("pagehide", () => {
  if (!annotator) return;
  fetch(api, { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ do: "close", annotator }) });
});
annotators().catch((error) => problem(error.message));
