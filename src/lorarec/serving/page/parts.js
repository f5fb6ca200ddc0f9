// The parts of a score, as a table with a bar for each part.

import {formatSigned, makeNode, makeSignedBar} from "./dom.js";

// Kinds of recommenders, and the two parts of no recommender, with a color of their own; others share the last color.
const COLORED = ["language model", "next-item model", "co-occurrence", "titles", "popularity", "item order", "index",
  "new item"];
const DESCRIPTIONS = {index: "place in the index's order", "new item": "prior of new items"};

const colorOf = (kind) => `part-${COLORED.includes(kind) ? COLORED.indexOf(kind) : COLORED.length}`;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/**
 * Return a list of parts for each item of a ranking; values are relative to a mean, so that they show what sets items
 * apart.
 * @param {Object[]} ranking - Items of a response.
 * @param {Object<string, string>} kinds - Kind of each recommender of the fusion by its name.
 */
export function scoreParts(ranking, kinds) {
  const isFused = ranking.some(({parts}) => Object.keys(parts).length);
  return isFused ? ranking.map(({parts}) => fusedParts(parts, kinds)) : adapterParts(ranking);
}

function fusedParts(parts, kinds) {
  return Object.entries(parts).map(([name, value]) => {
    const kind = kinds[name], isOwn = kind && kind !== "other" && kind !== name;
    return {name, value, color: colorOf(kind ?? name), description: isOwn ? kind : DESCRIPTIONS[name] ?? ""};
  });
}

/** Return the two parts of a score of adapters: the model's, and that of the index if it has proposed the items. */
function adapterParts(ranking) {
  const ofModel = ranking.map(({log_odds: odds, log_likelihood: likelihood}) => odds ?? likelihood);
  const ofIndex = ranking.map(({log_prior: prior}) => prior);
  const [meanOfModel, meanOfIndex] = [mean(ofModel), mean(ofIndex)], hasIndex = ofIndex.some((prior) => prior !== 0);
  const nameOf = ({log_odds: odds}) => (odds === null ? "log-probability of the title" : "log-odds of yes");
  return ranking.map((item, place) => [
    {
      name: "language model",
      description: `${nameOf(item)} ${formatSigned(ofModel[place])}`,
      color: colorOf("language model"),
      value: ofModel[place] - meanOfModel,
    },
    ...(hasIndex ? [{
      name: "index",
      description: `place ${Math.round(Math.exp(-ofIndex[place]))} in the index's order`, // the prior is 1 / place
      color: colorOf("index"),
      value: ofIndex[place] - meanOfIndex,
    }] : []),
  ]);
}

/** Return a table of the parts of an item; `largest` is the largest absolute part of all shown items. */
export function makePartsTable(parts, largest, caption) {
  const rows = parts.map(({name, description, color, value}) => makeNode("tr", {},
    makeNode("th", {scope: "row"}, makeNode("span", {className: `swatch ${color}`}), name,
      makeNode("span", {className: "kind", textContent: description})),
    makeNode("td", {textContent: formatSigned(value)}),
    makeNode("td", {ariaHidden: "true"}, makeSignedBar(value, largest, color))));
  return makeNode("table", {className: "parts"}, makeNode("caption", {className: "caption", textContent: caption}),
    makeNode("tbody", {}, ...rows));
}
