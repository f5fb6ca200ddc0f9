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
