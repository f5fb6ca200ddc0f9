// The rankings of two mixtures side by side.

import {formatCount, formatPercent, itemKey, makeMove, makeNode} from "./dom.js";

/**
 * Show two rankings in the columns of a table, whose rows are places.
 * @param {HTMLTableElement} table - Table to fill.
 * @param {Object[][]} rankings - Items of both responses.
 * @param {string[]} names - Both mixtures in words.
 * @returns {string} Sentence that says how many items moved.
 */
export function showComparison(table, rankings, names) {
  const [before, after] = rankings.map((ranking) => new Map(ranking.map((item, place) => [itemKey(item), place])));
  const rows = Array.from({length: Math.max(...rankings.map(({length}) => length))}, (_, place) => makeNode("tr", {},
    makeNode("th", {scope: "row", textContent: place + 1}),
    makeCell(rankings[0][place], (key) => (after.has(key) ? "" : makeMove(undefined, place, "not in B"))),
    makeCell(rankings[1][place], (key) => makeMove(before.get(key), place, "not in A"))));
  const headings = names.map((name, column) => makeNode("th", {scope: "col"},
    makeNode("span", {className: "letter", textContent: "AB"[column]}), ` ${name}`));
  const corner = makeNode("th", {scope: "col"}, makeNode("span", {className: "visually-hidden", textContent: "Place"}));
  table.replaceChildren(makeNode("thead", {}, makeNode("tr", {}, corner, ...headings)), makeNode("tbody", {}, ...rows));
  const shared = [...after].filter(([key]) => before.has(key));
  const higher = shared.filter(([key, place]) => place < before.get(key)).length;
  const lower = shared.filter(([key, place]) => place > before.get(key)).length;
  return `${formatCount(after.size, "item")} in B: ${higher} higher than in A, ${lower} lower, ` +
    `${shared.length - higher - lower} in the same place, ${after.size - shared.length} not in A.`;
}

function makeCell(item, makeNote) {
  if (!item) return makeNode("td");
  const cell = makeNode("td", {}, makeNode("span", {className: "title", textContent: item.title}),
    makeNode("span", {className: "numbers"}, formatPercent(item.probability), makeNote(itemKey(item))));
  cell.dataset.item = itemKey(item);
  return cell;
}

/** Mark the cells of an item in both columns while the pointer is on one of them. */
export function markSameItem(table) {
  table.addEventListener("pointerover", ({target}) => {
    const item = target.closest("td")?.dataset.item;
    for (const cell of table.querySelectorAll("td")) {
      cell.classList.toggle("same", item !== undefined && cell.dataset.item === item);
    }
  });
}
