// A text field with a list of search results: the combobox pattern of the ARIA Authoring Practices.

import {formatCount} from "./dom.js";

const DEBOUNCE_MS = 120;

/**
 * Turn an input into a combobox.
 * @param {HTMLInputElement} input - Field with the role combobox, whose attribute aria-controls names its listbox.
 * @param {function(string): Promise<{value: string}[]>} search - Returns the options for a text, best first.
 * @param {function({value: string}): string} select - Handles the selected option; returns the new text of the field.
 * @param {{minLength: number, onlyFound: boolean, announce: function(string), fail: function(Error)}} settings - Number
 *     of characters from which on options are shown, whether the text as typed is no option, function that announces
 *     their number to screen readers, and error handler.
 */
export function combobox(input, search, select, {minLength, onlyFound = false, announce, fail}) {
  const list = document.getElementById(input.getAttribute("aria-controls"));
  let options = [], active = -1, searchId = 0, timer, settled = true, enterPressed = false;

  function close() {
    searchId += 1;
    clearTimeout(timer);
    [options, active, settled, enterPressed] = [[], -1, true, false];
    draw();
  }

  function choose(option) {
    close();
    input.value = select(option);
  }

  async function open() {
    const id = ++searchId, text = input.value.trim();
    if (text.length < minLength) return close();
    try {
      const results = await search(text);
      if (id !== searchId) return; // the text has changed
      const isOffered = text && !onlyFound && !results.some(({value}) => value === text);
      [options, active, settled] = [isOffered ? [...results, {value: text, isTyped: true}] : results, -1, true];
      if (enterPressed && options.length) return choose(options[0]);
      draw();
      announce(formatCount(results.length, "suggestion"));
    } catch (error) {
      if (id === searchId) close();
      fail(error);
    }
  }

  function draw() {
    list.replaceChildren(...options.map((option, index) => {
      const node = document.createElement("li");
      node.id = `${list.id}-${index}`;
      node.textContent = option.isTyped ? `“${option.value}” as typed` : option.value;
      node.setAttribute("role", "option");
      node.setAttribute("aria-selected", String(index === active));
      node.addEventListener("click", () => choose(option));
      return node;
    }));
    list.hidden = !options.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.setAttribute("aria-activedescendant", list.children[active]?.id ?? "");
    list.children[active]?.scrollIntoView({block: "nearest"});
  }

  function move(step) {
    active = active < 0 && step < 0 ? options.length - 1 : (active + step + options.length) % options.length;
    draw();
  }

  input.addEventListener("input", () => {
    searchId += 1; // the result of a running search is for another text
    [settled, enterPressed] = [false, false];
    clearTimeout(timer);
    timer = setTimeout(open, DEBOUNCE_MS);
  });
  input.addEventListener("focus", () => minLength || open());
  input.addEventListener("blur", () => enterPressed || close());
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the focus stays in the field
  input.addEventListener("keydown", (event) => {
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key], isOpen = !list.hidden;
    if (event.isComposing) return;
    if (step) isOpen ? move(step) : open();
    else if (event.key === "Escape" && isOpen) close();
    else if (event.key === "Enter" && !settled) enterPressed = true; // the first option is selected when it arrives
    else if (event.key === "Enter" && isOpen) choose(options[Math.max(active, 0)]);
    else return;
    event.preventDefault();
  });
}
