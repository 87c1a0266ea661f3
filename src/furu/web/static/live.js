// Follows a run: what the server tells is only ever set as text, as a class out of a list, or as a link
// to a hash.
"use strict";

const STATES = new Set([
  "planned", "running", "waiting", "retrying", "overran", "done", "reused", "failed", "abandoned", "stopped",
]);
const MAX_LISTED = 50;

const main = document.querySelector("main[data-events]");
const running = new Map();
for (const item of document.querySelectorAll("#running [data-item]")) {
  running.set(item.dataset.item, item.textContent);
}

function link(hash, text) {
  const anchor = document.createElement("a");
  anchor.className = "hash";
  anchor.href = main.dataset.nodes + hash;
  anchor.textContent = text;
  return anchor;
}

function showNode(node) {
  if (!STATES.has(node.state) || !/^[0-9a-f]{32}$/.test(node.hash)) return null;
  const label = node.name + " " + node.hash.slice(0, 12);
  if (node.state === "running") running.set(node.hash, label);
  else running.delete(node.hash);
  if (node.state === "failed") {
    const list = document.getElementById("failed");
    if (list.children.length < MAX_LISTED) {
      const item = document.createElement("li");
      const why = document.createElement("span");
      why.textContent = node.error;
      item.append(link(node.hash, label), why);
      list.append(item);
    }
  }
  const box = document.querySelector('[data-box="' + node.hash + '"]');
  if (box) box.setAttribute("class", "box " + node.state);
  const cell = document.getElementById("n" + node.hash);
  if (!cell) return null;
  cell.className = "cell " + node.state;
  return cell.closest("section:not([data-cut])");
}

function countCells(section) {
  const counts = {};
  for (const cell of section.querySelectorAll(".cell")) {
    const state = cell.className.slice("cell ".length);
    counts[state] = (counts[state] || 0) + 1;
  }
  const said = Object.keys(counts).sort().map((state) => counts[state].toLocaleString("en") + " " + state);
  section.querySelector(".counts").textContent = said.join(", ");
}

function showCounts(counts) {
  for (const number of document.querySelectorAll("[data-count]")) {
    const count = counts[number.dataset.count] || 0;
    number.textContent = count.toLocaleString("en");
    number.parentElement.hidden = count === 0;
  }
  const settled = (counts.done || 0) + (counts.reused || 0) + (counts.failed || 0);
  const progress = document.getElementById("progress");
  progress.max = Object.values(counts).reduce((sum, count) => sum + count, 0) || 1;
  progress.value = settled;
}

function showRunning() {
  const items = [];
  for (const [hash, label] of running) {
    if (items.length === MAX_LISTED) break;
    const item = document.createElement("li");
    item.append(link(hash, label));
    items.push(item);
  }
  document.getElementById("running").replaceChildren(...items);
}

const source = new EventSource(main.dataset.events + "?after=" + main.dataset.after);
source.addEventListener("progress", (message) => {
  const told = JSON.parse(message.data);
  const sections = new Set(told.nodes.map(showNode));
  sections.delete(null);
  sections.forEach(countCells);
  showCounts(told.counts);
  showRunning();
  const badge = document.getElementById("state");
  badge.textContent = told.state;
  badge.className = "badge " + told.state;
});
source.addEventListener("end", () => {
  source.close();
  // The page of a run that has ended is whole, and opens no stream. A service that ended has none.
  fetch(location.href, { method: "HEAD" }).then((answer) => { if (answer.ok) location.reload(); }, () => {});
});
