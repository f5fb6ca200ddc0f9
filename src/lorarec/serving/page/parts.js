// The parts of a fused score, as a table with a bar for each recommender.

import {formatSigned, makeNode} from "/dom.js";

// Kinds of recommenders, and the two parts of no recommender, with a color of their own; others share the last color.
const COLORED = ["language model", "next-item model", "co-occurrence", "titles", "popularity", "item order", "index",
  "new item"];
const DESCRIPTIONS = {index: "place in the index's order", "new item": "prior of new items"};
const openByItem = new Map();

/**
 * Return a node that shows the parts of the score of an item; it can be opened and closed.
 * @param {string} item - Key of the item, by which it is remembered whether its parts are open.
 * @param {string} title - Title of the item.
 * @param {Object<string, number>} parts - What each recommender adds to the score.
 * @param {Object<string, string>} kinds - Kind of each recommender by its name.
 * @param {number} largest - Largest absolute part of all shown items, which fills half of the width.
 * @param {boolean} isOpen - Whether the parts are open before the user opens or closes them.
 */
export function makeParts(item, title, parts, kinds, largest, isOpen) {
  const rows = Object.entries(parts).map(([name, part]) => makeRow(name, part, kinds[name], largest));
  const summary = makeNode("summary", {}, "Parts of the score", makeNode("span", {
    className: "visually-hidden", textContent: ` of ${title}`,
  }));
  const node = makeNode("details", {className: "parts", open: openByItem.get(item) ?? isOpen},
    summary, makeNode("table", {}, makeNode("tbody", {}, ...rows)));
  summary.addEventListener("click", () => openByItem.set(item, !node.open));
  return node;
}

function makeRow(name, part, kind, largest) {
  const position = COLORED.indexOf(kind ?? name), color = `part-${position < 0 ? COLORED.length : position}`;
  const bar = makeNode("span", {className: color});
  bar.style.width = `${largest ? (50 * Math.abs(part)) / largest : 0}%`;
  bar.style[part < 0 ? "right" : "left"] = "50%";
  const description = kind && kind !== "other" && kind !== name ? kind : DESCRIPTIONS[name] ?? "";
  return makeNode("tr", {},
    makeNode("th", {scope: "row"}, makeNode("span", {className: `swatch ${color}`}), name,
      makeNode("span", {className: "kind", textContent: description})),
    makeNode("td", {textContent: formatSigned(part)}),
    makeNode("td", {ariaHidden: "true"}, makeNode("div", {className: "axis"}, bar)));
}
