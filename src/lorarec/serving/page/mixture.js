// The controls of what ranks the items: the fusion, one adapter, or two adapters and their weights.

import {byId, formatNumber, makeNode} from "./dom.js";

/**
 * Return functions for the controls in the page whose ids end with a suffix.
 * @param {string} suffix - End of their ids; empty for those of the first mixture.
 */
export function mixtureControls(suffix = "") {
  const node = (name) => byId(`${name}${suffix}`), kinds = new Map();
  let hasFusion = false;

  /** Offer the loaded adapters and the fusion of a service, and select those that rank by default. */
  function offer(loaded, fusion) {
    hasFusion = fusion !== null;
    node("system-part").hidden = !hasFusion || !loaded.length;
    node("system-fusion").checked = true;
    node("fusion-part").textContent =
      hasFusion ? `A learned last stage over the scores of ${Object.keys(fusion.recommenders).join(", ")}.` : "";
    loaded.forEach(({name, kind}) => kinds.set(name, kind));
    const plain = loaded.filter(({kind}) => kind === "adapter");
    const first = plain.find(({name}) => name === "general") ?? plain[0] ?? loaded[0];
    const others = plain.filter(({name, readout}) => name !== first.name && readout === first.readout);
    const second = others.find(({name}) => name === "specific") ?? others[0];
    for (const [id, adapters, selected, none] of [
      ["first", loaded, first, "backbone only"], ["second", plain, second, "none"],
    ]) {
      const options = adapters.map(({name}) => makeNode("option", {value: name, textContent: name}));
      node(id).replaceChildren(...options, makeNode("option", {value: "", textContent: none}));
      node(id).value = selected?.name ?? "";
    }
  }

  /** Return the values of the controls. */
  function read() {
    const system = hasFusion && node("system-fusion").checked ? "fusion" : "adapters";
    return {system, first: node("first").value, second: node("second").value, weight: node("slider").value};
  }

  /** Set the values of the controls, and return the names of what the service does not have, which is left out. */
  function write({system, first, second, weight}) {
    const missing = system === "fusion" && !hasFusion ? ["the fusion"] : [];
    node(system === "adapters" ? "system-adapters" : "system-fusion").checked = true;
    for (const [id, name] of [["first", first], ["second", second]]) {
      if ([...node(id).options].some(({value}) => value === name)) node(id).value = name;
      else if (name && system !== "fusion") missing.push(name);
    }
    node("slider").value = weight;
    return missing;
  }

  /** Return the weight of each selected adapter, or undefined if the fusion ranks. */
  function weights() {
    const {system, first, second, weight} = read();
    if (system === "fusion") return undefined;
    if (!isMixed()) return Object.fromEntries([first || second].filter(Boolean).map((name) => [name, 1]));
    return Object.fromEntries([[first, 1 - weight / 100], [second, weight / 100]]);
  }

  const isPersonal = () => kinds.get(node("first").value) === "personal";
  const isMixed = () => {
    const {first, second} = read();
    return Boolean(first && second && first !== second && !isPersonal());
  };

  /** Return the mixture in words. */
  function describe() {
    const names = Object.entries(weights() ?? {"the fusion": 1});
    if (!names.length) return "backbone only";
    return names.map(([name, weight]) => (names.length > 1 ? `${name} ${formatNumber(weight)}` : name)).join(", ");
  }

  /** Show the controls that the selected values need. */
  function update() {
    const isFused = weights() === undefined;
    node("fusion-part").hidden = !isFused;
    node("pair-part").hidden = isFused;
    node("slider-part").hidden = isFused || !isMixed();
    node("second-part").hidden = isPersonal();
    node("personal-part").hidden = isFused || !isPersonal();
    const {first, second, weight} = read();
    node("first-weight").textContent = `${first} ${formatNumber(1 - weight / 100)}`;
    node("second-weight").textContent = `${second} ${formatNumber(weight / 100)}`;
    node("slider").setAttribute("aria-valuetext",
      `${node("first-weight").textContent}, ${node("second-weight").textContent}`);
  }

  return {offer, read, write, weights, describe, update};
}

/** Add a copy of the controls of the first mixture to the page, with other ids; return its node. */
export function copyControls(suffix, name) {
  const copy = byId("mixture").cloneNode(true);
  for (const node of [copy, ...copy.querySelectorAll("*")]) {
    for (const attribute of ["id", "for", "name"]) {
      if (node.hasAttribute(attribute)) node.setAttribute(attribute, `${node.getAttribute(attribute)}${suffix}`);
    }
  }
  copy.ariaLabel = `Mixture ${name}`;
  copy.querySelector(".letter").textContent = name;
  byId("mixture").after(copy);
  return copy;
}
