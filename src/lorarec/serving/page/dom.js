// Helpers for nodes and numbers.

export const byId = (id) => document.getElementById(id);
export const makeNode = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
export const formatNumber = (value) => value.toFixed(2);
export const formatSigned = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
export const formatPercent = (value) => `${(100 * value).toFixed(1)} %`;
export const formatCount = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Return a key of a ranked item, which is its id or, if it has none, its title. */
export const itemKey = ({item_id: id, title}) => id ?? `\0${title}`;

/** Return a bar to the left or the right of a middle line, for a number between -largest and largest. */
export function makeSignedBar(value, largest, color) {
  const bar = makeNode("span", {className: color});
  bar.style.width = `${largest ? (50 * Math.abs(value)) / largest : 0}%`;
  bar.style[value < 0 ? "right" : "left"] = "50%";
  return makeNode("div", {className: "axis", ariaHidden: "true"}, bar);
}

/** Return a node that says by how many places an item moved; `missing` is its text if it was not there before. */
export function makeMove(before, after, missing) {
  if (before === after) return makeNode("span", {className: "moved"});
  if (before === undefined) return makeNode("span", {className: "moved", textContent: missing});
  const [arrow, word] = before > after ? ["▲", "up"] : ["▼", "down"], places = Math.abs(before - after);
  return makeNode("span", {className: "moved"},
    makeNode("span", {ariaHidden: "true", textContent: `${arrow} ${places}`}),
    makeNode("span", {className: "visually-hidden", textContent: `${word} ${places}`}));
}
