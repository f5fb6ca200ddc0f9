// The table of weights by layer, whatever the mixture.

import {byId, make, number, plural} from "/dom.js";

const COLOURS = 6;

/**
 * Show the weights of an answer, layer by layer.
 * @param {{mixture: Object, personal: Object}} answer
 * @param {Object[]} parts what the service tells of each adapter in the mixture.
 * @param {string=} user whose stored history was read, if one was.
 */
export function showWeights({mixture, personal}, parts, user) {
  const given = ({name}) => Object.hasOwn(personal, name) && personal[name];
  const layers = layersOf(mixture, parts.map((one) => given(one) ? mixedFor(one.name, given(one)) : one));
  const names = [...new Set([...layers.values()].flatMap((row) => [...row.keys()]))];
  const swatch = (place) => `part-${place % COLOURS}`;
  const rows = [...layers].map(([layer, row]) => {
    const shares = names.map((name) => row.get(name) ?? 0);
    const pieces = shares.map((share, place) => make("span", {className: swatch(place)}));
    pieces.forEach((piece, place) => (piece.style.flexGrow = shares[place]));
    return make("tr", {}, make("th", {scope: "row", textContent: layer.replace(/^model\.layers\./, "")}),
      ...shares.map((share) => make("td", {textContent: number(share)})),
      make("td", {ariaHidden: "true"}, make("div", {className: "stack"}, ...pieces)));
  });
  const heads = names.map((name, place) =>
    make("th", {scope: "col"}, make("span", {className: `swatch ${swatch(place)}`}), name));
  const head = make("tr", {}, make("th", {scope: "col", textContent: "Layer"}), ...heads, make("td"));
  byId("weights").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  byId("weights-box").hidden = !rows.length;
  const alike = new Set([...layers.values()].map((row) => JSON.stringify([...row]))).size === 1;
  const whose = parts.map((one) => {
    if (given(one)) return given(one).routed ? `${one.name}, for user ${user}.` : `${one.name}, the mean of its users.`;
    return one.user_id ? `${one.name} was mixed for user ${one.user_id}.` : "";
  }).filter(Boolean);
  const spread = alike ? `The same in all ${plural(rows.length, "layer")}.` : "Not the same in all layers.";
  byId("weights-note").textContent = [...whose, rows.length ? spread : "No adapter: the backbone alone."].join(" ");
}

/** A personal adapter, told as one that was mixed as it is for the user. */
function mixedFor(name, {parts, layers}) {
  const named = (weights) => Object.fromEntries(parts.map((part, place) => [part, weights[place]]));
  return {name, layers: Object.entries(layers).map(([layer, weights]) => ({layer, weights: named(weights)}))};
}

/** Layer -> part -> weight; an adapter that is a mixture itself counts as its parts. */
function layersOf(weights, parts) {
  const layers = new Map();
  for (const {name, layers: own} of parts) {
    for (const {layer, weights: inside} of own) {
      const row = layers.get(layer) ?? layers.set(layer, new Map()).get(layer);
      for (const [part, weight] of Object.entries(inside)) row.set(part, (row.get(part) ?? 0) + weights[name] * weight);
    }
  }
  return layers;
}
