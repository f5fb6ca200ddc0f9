// A text field with a list of options that a search gives: the combobox pattern of the ARIA Authoring Practices.

const WAIT = 120;

/**
 * @param {HTMLInputElement} input has the role combobox and names its listbox in aria-controls.
 * @param {function(string): Promise<{value: string}[]>} find the options for what is typed, best first.
 * @param {function({value: string}): string} pick takes the option chosen; what it returns stays in the field.
 * @param {{least: number, say: function(string), fail: function(Error)}} settings characters from which on options are
 *     shown, what tells a screen reader how many, and what becomes of an error.
 */
export function combobox(input, find, pick, {least, say, fail}) {
  const list = document.getElementById(input.getAttribute("aria-controls"));
  let options = [], active = -1, search = 0, timer, settled = true, entered = false;

  function close() {
    search += 1;
    clearTimeout(timer);
    [options, active, settled, entered] = [[], -1, true, false];
    draw();
  }

  function choose(option) {
    close();
    input.value = pick(option);
  }

  async function open() {
    const mine = ++search, words = input.value.trim();
    if (words.length < least) return close();
    try {
      const found = await find(words);
      if (mine !== search) return;
      const typed = words && !found.some(({value}) => value === words) ? [{value: words, typed: true}] : [];
      [options, active, settled] = [[...found, ...typed], -1, true];
      if (entered && options.length) return choose(options[0]);
      draw();
      say(`${found.length} suggestion${found.length === 1 ? "" : "s"}`);
    } catch (error) {
      if (mine === search) close();
      fail(error);
    }
  }

  function draw() {
    list.replaceChildren(...options.map((option, place) => {
      const node = document.createElement("li");
      node.id = `${list.id}-${place}`;
      node.textContent = option.typed ? `“${option.value}” as typed` : option.value;
      node.setAttribute("role", "option");
      node.setAttribute("aria-selected", String(place === active));
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
    search += 1; // an answer under way is to other words
    [settled, entered] = [false, false];
    clearTimeout(timer);
    timer = setTimeout(open, WAIT);
  });
  input.addEventListener("focus", () => least || open());
  input.addEventListener("blur", () => entered || close());
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
  input.addEventListener("keydown", (event) => {
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key], shown = !list.hidden;
    if (event.isComposing) return;
    if (step) shown ? move(step) : open();
    else if (event.key === "Escape" && shown) close();
    else if (event.key === "Enter" && !settled) entered = true; // chosen when the answer is there
    else if (event.key === "Enter" && shown) choose(options[Math.max(active, 0)]);
    else return;
    event.preventDefault();
  });
}
