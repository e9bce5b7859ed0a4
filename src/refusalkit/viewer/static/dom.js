// Elements are made from text nodes and attributes; no text is ever read as HTML.

export const $ = (id) => document.getElementById(id);

// An element; `props` are attributes, but for on... (a listener) and dataset; false leaves one out.
export function h(name, props, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "dataset") Object.assign(element.dataset, value);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  fill(element, ...children);
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
}

export class Problem extends Error {}

// The JSON that this server returns for an address; throws a Problem with a sentence on failure.
export async function ask(path, { signal, body } = {}) {
  const options = { signal, credentials: "same-origin", cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The viewer has ended. Start it again: refusalkit view");
  }
  if (answer.status === 403) throw new Problem("The viewer was started anew: open the address that it printed");
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(data.error ?? `The viewer answered ${answer.status}`);
  return data;
}

const thin = "\u2009";
export const number = (value) => (value === null || value === undefined ? "" : value.toLocaleString("en").replaceAll(",", thin));
export const percent = (value) => (value === null || value === undefined ? "\u2013" : value.toFixed(1));

export function dollars(value) {
  if (value === null || value === undefined) return "unknown";
  if (value === 0) return "$0";
  return value >= 1 ? `$${value.toFixed(2)}` : `$${value.toPrecision(2)}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))}\u00a0s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes}\u00a0min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}\u00a0h ${minutes % 60}\u00a0min` : `${Math.round(hours / 24)}\u00a0days`;
}

export function day(text) {
  if (!text) return "\u2013";
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text.slice(0, 10);
  const today = new Date().toDateString() === time.toDateString();
  if (today) return `today ${time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
  return time.toISOString().slice(0, 10);
}

// Repeats something while the page is visible; it returns the seconds until the next time.
export function poll(work) {
  let timer = 0;
  const turn = async () => {
    window.clearTimeout(timer);
    if (document.hidden) return;
    const seconds = await work().catch(() => 5);
    if (seconds) timer = window.setTimeout(turn, seconds * 1000);
  };
  document.addEventListener("visibilitychange", () => document.hidden || turn());
  turn();
  return turn;
}

// Whether a key is meant for the page and not for a field or the browser.
export function isForPage(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return false;
  if (document.querySelector("dialog[open]")) return false;
  const at = event.target;
  return !(at instanceof Element && at.closest("input, select, textarea"));
}

export function keysDialog() {
  const dialog = $("keys");
  $("help").addEventListener("click", () => dialog.showModal());
  return () => dialog.showModal();
}
