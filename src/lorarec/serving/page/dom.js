// What all parts of the page make nodes and texts with.

export const byId = (id) => document.getElementById(id);
export const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
export const number = (value) => value.toFixed(2), percent = (value) => `${(100 * value).toFixed(1)} %`;
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
