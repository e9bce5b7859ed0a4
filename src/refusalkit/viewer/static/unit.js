// Shows one unit: the conversation, the answer, what each judge said. All of it as text.

import { h, number } from "./dom.js";

const reasons = {
  no_answer: "no final text",
  empty: "empty answer",
  error: "the request failed",
  unparsable: "the judge's reply could not be read",
  judge_blocked: "the judge's provider blocked it",
  judge_error: "the judge failed",
  unknown_language: "the judge does not read this language",
  no_majority: "the judges reached no decision",
  missing_vote: "a vote is missing",
  withheld: "the text was not kept for this judge",
  owed: "not judged yet",
};

export function label(of, { leak = false } = {}) {
  const word = of.label ?? "unscored";
  return h("span", { class: `label ${word}${leak ? " leak" : ""}` }, word);
}

export const whyUnscored = (reason) => reasons[reason] ?? (reason ? reason.replaceAll("_", " ") : "");

function turn(role, text) {
  return h("div", { class: `turn ${role}` }, h("h3", {}, role), h("p", { class: "text", dir: "auto" }, text));
}

export function conversation(turns) {
  return turns.map((one) => turn(one.role, one.text));
}

// Text that waits for a deliberate click.
export function cover(what, uncover, key = "u") {
  return h(
    "div",
    { class: "cover" },
    h("p", {}, `${what} covered: this is a hard line.`),
    h("button", { type: "button", class: "button uncover", onclick: uncover }, "Uncover ", h("kbd", {}, key)),
  );
}

export function answer(unit) {
  if (unit.text !== null && unit.text !== "") {
    const all = unit.text_chars > unit.text.length + 5 && unit.text.length >= 200000;
    return [
      h("p", { class: "text", dir: "auto" }, unit.text),
      all ? h("p", { class: "soft" }, `The first 200${"\u2009"}000 of ${number(unit.text_chars)} characters.`) : null,
    ];
  }
  if (unit.kept) return h("p", { class: "soft" }, unit.outcome === "blocked" ? "A filter answered; there is no text." : "There is no text.");
  return h(
    "p",
    { class: "soft" },
    unit.text_chars ? `The answer was not kept (${number(unit.text_chars)} characters): answers to hard lines are not, unless a run is told to.` : "There is no text.",
  );
}

function facts(pairs) {
  return h("dl", { class: "small-print" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function verdict(one, unit, several) {
  const told = [];
  if (one.label === null) told.push(whyUnscored(one.unscored));
  if (one.source === "provider" && one.label) told.push("by the provider's filter");
  if (one.word && one.word !== one.label) told.push(`in its words: ${one.word}`);
  if (one.rests_on) told.push(`rests on the ${one.rests_on}`);
  if (one.cut_chars) told.push(`was not shown ${number(one.cut_chars)} characters of the middle`);
  if (one.answered_by && one.answered_by !== one.judge) told.push(`answered by ${one.answered_by}`);
  const reason = one.reason ?? (one.has_reason && unit.covered ? "The reason is covered with the texts." : null);
  return h(
    "div",
    { class: "said" },
    h("div", { class: "said-head" }, label(one, { leak: unit.hard_line && ["partial", "compliance"].includes(one.label) }), h("span", { class: "judge" }, one.judge, several && one.of_record ? h("span", { class: "soft" }, " (of record)") : null)),
    told.length ? h("p", { class: "soft" }, told.join(" \u00b7 ")) : null,
    reason ? h("p", { class: `text reason${one.reason ? "" : " soft"}`, dir: "auto" }, reason) : null,
  );
}

export function verdicts(unit) {
  const several = unit.verdicts.length > 1;
  return h(
    "section",
    { class: "verdicts", "aria-label": several ? "Verdicts" : "Verdict" },
    h("h2", {}, several ? "Judges" : "Verdict", several && unit.differ ? h("span", { class: "note" }, " they differ") : null),
    h("div", { class: several ? "side" : "" }, unit.verdicts.map((one) => verdict(one, unit, several))),
  );
}

function pressure(unit) {
  if (!unit.turns.length) return null;
  return h(
    "section",
    { class: "pressure", "aria-label": "Pressure" },
    h("h2", {}, "Under pressure"),
    unit.turns.map((one) => [
      one.said ? turn("user", one.said) : null,
      h(
        "div",
        { class: "turn assistant" },
        h("h3", {}, one.turn ? `assistant, turn ${one.turn}` : "assistant, asked again", " ", label(one)),
        one.text ? h("p", { class: "text", dir: "auto" }, one.text) : h("p", { class: "soft" }, unit.covered && one.kept ? "Covered." : "The answer was not kept."),
        one.reason ? h("p", { class: "soft text reason" }, one.reason) : null,
      ),
    ]),
  );
}

// The prompt, once: also where two runs' answers stand side by side.
export function prompt(unit, uncover) {
  let inside;
  if (unit.covered) inside = cover(unit.kept ? "Prompt and answer are" : "The prompt is", uncover);
  else if (unit.conversation) inside = conversation(unit.conversation);
  else if (unit.prompt_state === "loading") inside = h("p", { class: "soft" }, "The prompts are being read.");
  else inside = h("p", { class: "soft" }, `The prompt's text is not available: ${unit.prompt_state}.`);
  return h("section", { class: "prompt", "aria-label": "Prompt" }, h("h2", {}, "Prompt"), inside);
}

export function response(unit, title) {
  return h(
    "section",
    { class: "answer", "aria-label": title },
    h("h2", {}, title, " ", unit.outcome === "answered" ? null : h("span", { class: "note" }, unit.outcome.replace("_", " "))),
    unit.covered && unit.kept ? h("p", { class: "soft" }, "Covered.") : answer(unit),
  );
}

export function details(unit) {
  return h("details", { class: "details" }, h("summary", {}, "Details"), facts([...unit.facts, ...(unit.tags.length ? [["tags", unit.tags.join(", ")]] : []), ...(unit.lang ? [["language", unit.lang]] : [])]));
}

export { pressure };
