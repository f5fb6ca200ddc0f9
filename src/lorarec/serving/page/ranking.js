// The ranking: a list of items that can be opened to see why they stand where they do.

import {formatPercent, itemKey, makeMove, makeNode} from "./dom.js";
import {makeExplanation} from "./explanation.js";
import {makePartsTable, scoreParts} from "./parts.js";

// Milliseconds after which a ranking that no newer one has replaced is explained again.
const SETTLED_MS = 400;
const openByItem = new Map();

/**
 * Show ranked items.
 * @param {HTMLElement} list - List of the items.
 * @param {Object[]} ranking - Items of a response.
 * @param {boolean} isSame - Whether the list shows an earlier ranking for the same question, so that moves are shown.
 * @param {Object<string, string>} kinds - Kind of each recommender of the fusion by its name.
 * @param {function(Object): Promise<Object>} explain - Requests the explanation of an item.
 * @returns {{moved: number, entered: number}} Number of items that moved and of items that were not in the list before.
 */
export function showRanking(list, ranking, {isSame, kinds, explain}) {
  const parts = scoreParts(ranking, kinds), largestPart = Math.max(...parts.flat().map(({value}) => Math.abs(value)));
  const before = new Map([...list.children].map((node, index) => [node.dataset.item, {index, top: node.offsetTop}]));
  const places = ranking.map((item, index) => (isSame ? before.get(itemKey(item))?.index : index));
  list.replaceChildren(...ranking.map((item, index) => {
    const key = itemKey(item), explanation = makeExplanation(() => explain(item));
    const bar = makeNode("span", {className: "bar"}, makeNode("span"));
    bar.firstChild.style.width = `${(100 * item.probability) / ranking[0].probability}%`;
    const summary = makeNode("summary", {},
      makeNode("span", {className: "title", textContent: item.title}),
      makeMove(places[index], index, "entered"),
      makeNode("span", {className: "probability", textContent: formatPercent(item.probability)}), bar);
    const details = makeNode("details", {open: openByItem.get(key) ?? index === 0}, summary,
      makePartsTable(parts[index], largestPart, caption(item)), explanation.node);
    summary.addEventListener("click", () => {
      openByItem.set(key, !details.open);
      if (!details.open) explanation.ask();
    });
    if (openByItem.get(key)) explanation.ask(SETTLED_MS);
    const node = makeNode("li", {}, details);
    node.dataset.item = key;
    return node;
  }));
  if (isSame) animateMoves([...list.children], before);
  const entered = places.filter((place) => place === undefined).length;
  return {entered, moved: places.filter((place, index) => place !== index).length - entered};
}

const caption = ({parts}) => (Object.keys(parts).length
  ? "Parts of the score, less the mean of all candidates" : "Parts of the score, less the mean of the shown items");

function animateMoves(nodes, before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const node of nodes) {
    const distance = (before.get(node.dataset.item)?.top ?? node.offsetTop) - node.offsetTop;
    if (distance) {
      node.animate({transform: [`translateY(${distance}px)`, "none"]}, {duration: 250, easing: "ease-out"});
    }
  }
}
