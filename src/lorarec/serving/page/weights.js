// The table of weights by layer, which has one row if they are the same in all layers.

import {byId, formatCount, formatNumber, makeNode} from "./dom.js";

const COLORS = 6;

/**
 * Show the weights of a response, layer by layer.
 * @param {{mixture: Object, personal: Object}} response - Response of the service.
 * @param {Object[]} adapters - Details of each adapter in the mixture.
 * @param {string=} user - User whose stored history was read, if any.
 */
export function showWeights({mixture, personal}, adapters, user) {
  const userWeights = ({name}) => (Object.hasOwn(personal, name) ? personal[name] : null);
  const resolved = adapters.map((adapter) =>
    userWeights(adapter) ? withUserWeights(adapter.name, userWeights(adapter)) : adapter);
  const layers = weightsByLayer(mixture, resolved);
  const names = [...new Set([...layers.values()].flatMap((row) => [...row.keys()]))];
  const colorClass = (index) => `part-${index % COLORS}`;
  const isConstant = new Set([...layers.values()].map((row) => JSON.stringify([...row]))).size === 1;
  const shown = isConstant ? [["all layers", [...layers.values()][0]]] : [...layers];
  const rows = shown.map(([layer, row]) => {
    const weights = names.map((name) => row.get(name) ?? 0);
    const bars = weights.map((weight, index) => makeNode("span", {className: colorClass(index)}));
    bars.forEach((bar, index) => (bar.style.flexGrow = weights[index]));
    return makeNode("tr", {},
      makeNode("th", {scope: "row", textContent: layer.replace(/^model\.layers\./, "")}),
      ...weights.map((weight) => makeNode("td", {textContent: formatNumber(weight)})),
      makeNode("td", {ariaHidden: "true"}, makeNode("div", {className: "stack"}, ...bars)));
  });
  const headings = names.map((name, index) =>
    makeNode("th", {scope: "col"}, makeNode("span", {className: `swatch ${colorClass(index)}`}), name));
  const head = makeNode("tr", {},
    makeNode("th", {scope: "col", textContent: "Layer"}), ...headings, makeNode("td"));
  byId("weights").replaceChildren(makeNode("thead", {}, head), makeNode("tbody", {}, ...rows));
  byId("weights-box").hidden = !rows.length;
  const spread = isConstant
    ? `The weights are the same in all ${formatCount(layers.size, "layer")}.` : "The weights differ by layer.";
  const notes = adapters.map((adapter) => {
    const {name, user_id: owner} = adapter, weights = userWeights(adapter);
    if (weights?.routed) return `${name} is mixed for user ${user}.`;
    if (weights) return `${name} has the mean weights of its users.`;
    return owner ? `${name} was exported for user ${owner}.` : "";
  }).filter(Boolean);
  byId("weights-note").textContent =
    [...notes, rows.length ? spread : "No adapter is used: the backbone ranks alone."].join(" ");
}

/** Return the details of a personal adapter with the weights of a user. */
function withUserWeights(name, {parts, layers}) {
  const byPart = (weights) => Object.fromEntries(parts.map((part, index) => [part, weights[index]]));
  return {name, layers: Object.entries(layers).map(([layer, weights]) => ({layer, weights: byPart(weights)}))};
}

/** Return a map from layer to part to weight, in which an adapter that was mixed is replaced by its parts. */
function weightsByLayer(mixture, adapters) {
  const layers = new Map();
  for (const {name, layers: adapterLayers} of adapters) {
    for (const {layer, weights} of adapterLayers) {
      const row = layers.get(layer) ?? layers.set(layer, new Map()).get(layer);
      for (const [part, weight] of Object.entries(weights)) {
        row.set(part, (row.get(part) ?? 0) + mixture[name] * weight);
      }
    }
  }
  return layers;
}
