// What the history adds to the score of an item, which the service finds by leaving out each item of the history.

import {formatSigned, makeNode, makeSignedBar} from "./dom.js";

/**
 * Return a node for the explanation of an item.
 * @param {function(): Promise<Object>} request - Requests the explanation from the service.
 * @returns {{node: HTMLElement, ask: function(number=)}} The node, and a function that fills it after some milliseconds
 *     if the node is still in the page.
 */
export function makeExplanation(request) {
  const button = makeNode("button", {type: "button", className: "quiet", textContent: "Show what the history adds"});
  const node = makeNode("div", {className: "explanation"}, button);
  let isAsked = false;

  async function ask(delay = 0) {
    if (isAsked) return;
    isAsked = true;
    node.replaceChildren(makeNode("p", {className: "hint", textContent: "Leaving out each item of the history …"}));
    await new Promise((resolve) => setTimeout(resolve, delay));
    if (!node.isConnected) return;
    try {
      node.replaceChildren(...describe(await request()));
    } catch (error) {
      isAsked = false;
      const text = error.name === "AbortError" ? "" : error.message;
      node.replaceChildren(makeNode("p", {className: "hint", textContent: text}), button);
    }
  }

  button.addEventListener("click", () => ask());
  return {node, ask};
}

function describe({history, evidence}) {
  const ordered = [...history].sort((a, b) => Math.abs(b.score) - Math.abs(a.score));
  const largest = Math.abs(ordered[0].score);
  return [
    ...describeEvidence(evidence),
    makeNode("p", {className: "caption", textContent: "What each item of the history adds"}),
    makeNode("ol", {className: "influences"}, ...ordered.map(({title, score}) => makeNode("li", {},
      makeNode("span", {textContent: title}),
      makeNode("span", {className: "value", textContent: formatSigned(score)}),
      makeSignedBar(score, largest, "influence")))),
  ];
}

/** Return a sentence with the words that the prompts have about the item, if they have any. */
function describeEvidence(evidence) {
  const words = [...new Set(Object.values(evidence).map((word) => word || "rarely"))];
  if (!words.length) return [];
  return [makeNode("p", {className: "evidence"}, "Evidence in the prompt, how often others chose it with these items: ",
    makeNode("strong", {textContent: words.join("; ")}))];
}
