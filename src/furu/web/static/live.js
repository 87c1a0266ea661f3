// Follows a run. Values from the server are used only as text, as a listed class, or as a hash in a link.
"use strict";

const STATES = new Set([
  "planned", "running", "waiting", "retrying", "overran", "done", "reused", "failed", "abandoned", "stopped",
]);
const RUN_STATES = new Set(["queued", "running", "finished", "failed", "cancelled"]);
const MAX_LISTED = 50;
const RETRY_MS = 3000;

const main = document.querySelector("main[data-events]");
const sections = new Map();
for (const section of document.querySelectorAll("section[data-class]")) {
  sections.set(section.dataset.class, section);
}
let after = main.dataset.after;

function say(text) {
  const line = document.getElementById("connection");
  line.textContent = text;
  line.hidden = text === "";
}

function item(node) {
  const anchor = document.createElement("a");
  anchor.className = "hash";
  anchor.href = main.dataset.nodes + node.hash;
  anchor.textContent = node.name + " " + node.hash.slice(0, 12);
  const element = document.createElement("li");
  element.append(anchor);
  if (node.advance) {
    const advance = document.createElement("span");
    advance.className = "quiet";
    advance.textContent = " " + node.advance;
    element.append(advance);
  }
  return element;
}

function isHash(text) {
  return /^[0-9a-f]{32}$/.test(text);
}

function showNode(node) {
  if (!STATES.has(node.state) || !isHash(node.hash)) return;
  const list = document.getElementById("failed");
  if (node.state === "failed" && list.children.length < MAX_LISTED) {
    const why = document.createElement("span");
    why.textContent = node.error;
    const element = item(node);
    element.append(why);
    list.append(element);
  }
  const box = document.querySelector('[data-box="' + node.hash + '"]');
  if (box) box.setAttribute("class", "box " + node.state);
  const cell = document.getElementById("n" + node.hash);
  if (cell) cell.className = "cell " + node.state;
}

function showClass(name, counts) {
  const section = sections.get(name);
  if (!section) return;
  const unneeded = Number(section.dataset.unneeded);
  const known = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const all = Object.entries(counts);
  all.push(["pending", Number(section.dataset.total) - known - unneeded], ["not needed", unneeded]);
  const parts = all.filter(([, count]) => count > 0).sort(([a], [b]) => (a < b ? -1 : 1));
  section.querySelector(".counts").textContent =
    parts.map(([state, count]) => count.toLocaleString("en") + " " + state).join(", ");
}

function showRun(state, counts) {
  if (RUN_STATES.has(state)) {
    const badge = document.getElementById("state");
    badge.textContent = state;
    badge.className = "badge " + state;
  }
  for (const number of document.querySelectorAll("[data-count]")) {
    const count = counts[number.dataset.count] || 0;
    number.textContent = count.toLocaleString("en");
    number.parentElement.hidden = count === 0;
  }
  const progress = document.getElementById("progress");
  progress.max = Object.values(counts).reduce((sum, count) => sum + count, 0) || 1;
  progress.value = (counts.done || 0) + (counts.reused || 0) + (counts.failed || 0);
}

function showRunning(nodes) {
  document.getElementById("running").replaceChildren(...nodes.filter((node) => isHash(node.hash)).map(item));
}

function follow() {
  const source = new EventSource(main.dataset.events + "?after=" + after);
  source.addEventListener("open", () => say(""));
  source.addEventListener("progress", (message) => {
    const value = JSON.parse(message.data);
    after = message.lastEventId;
    value.nodes.forEach(showNode);
    Object.entries(value.classes).forEach(([name, counts]) => showClass(name, counts));
    showRunning(value.running);
    showRun(value.state, value.counts);
  });
  source.addEventListener("end", (message) => {
    source.close();
    const run = JSON.parse(message.data);
    showRun(run.state, run.counts);
    // Reload, because the page of an ended run is complete and needs no script.
    look((status) => (status === 200 ? location.reload() : say("The run has ended. " + whyGone(status))));
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return say("Connection lost, retrying…");
    source.close();  // the answer was not a stream, so the browser does not reconnect
    look((status) => {
      if (status !== 404 && (status === 0 || status === 200 || status >= 500)) {
        say("Connection lost, retrying…");
        setTimeout(follow, RETRY_MS);
        return;
      }
      say(whyGone(status));
      const badge = document.getElementById("state");
      badge.textContent = "unknown";
      badge.className = "badge";
    });
  });
}

function whyGone(status) {
  if (status === 404) return "This run is no longer kept.";
  return status === 0 ? "The service does not answer." : "The service answers " + status + ": reload the page.";
}

// Requests the run, and calls `then` with the status of the answer, or with 0 if there is no answer.
function look(then) {
  fetch(main.dataset.run, { cache: "no-store" }).then((answer) => then(answer.status), () => then(0));
}

follow();
