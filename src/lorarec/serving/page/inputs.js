// The inputs for the history and the items to rank.

import {call, latestTitles, searchTitles, searchUsers} from "./api.js";
import {combobox} from "./combobox.js";
import {byId, makeNode} from "./dom.js";

const LISTS = ["history", "candidates"];
const isTouched = matchMedia("(pointer: coarse)").matches; // a screen's keyboard hides half of the page

/**
 * Connect the inputs and return functions for them.
 * @param {{refresh: function(), announce: function(string), fail: function(Error)}} page - Function that is called
 *     after each change, function that tells screen readers a text, and error handler.
 */
export function connectInputs({refresh, announce, fail}) {
  const selection = {user: "", history: [], candidates: []};
  let event = null;

  function selectUser({value}) {
    byId("user").value = selection.user = value;
    if (isTouched) byId("user").blur();
    refresh();
    showLatestItems();
    return value;
  }

  async function showLatestItems() {
    const {user} = selection;
    const titles = await latestTitles(user).catch(() => []); // the request for the ranking shows the error
    if (selection.user !== user) return;
    byId("latest").replaceChildren(...titles.map((textContent) => makeNode("li", {textContent})));
    byId("latest-part").hidden = false; // an unknown user can get a first event
  }

  /** Remember the item of an event, and an id under which the service stores it once even if it is sent again. */
  function selectEvent(option) {
    event = option && {option, id: crypto.randomUUID?.()};
    byId("event-add").disabled = event === null;
    return option?.value ?? "";
  }

  async function addEvent() {
    const {option: {item, value}, id} = event, {user} = selection;
    byId("event-add").disabled = true;
    try {
      await call("/v1/events", {events: [{user_id: user, item_id: item, event_id: id}]});
    } catch (error) {
      byId("event-add").disabled = false;
      return fail(error);
    }
    byId("event-item").value = selectEvent(null);
    if (!isTouched) byId("event-item").focus();
    announce(`${value} was added to the history of ${user}`);
    refresh();
    showLatestItems();
  }

  function addTitle(id, option) {
    const isKnown = selection[id].some(({item, value}) => item === option.item && value === option.value);
    if (!isKnown) selection[id].push(option);
    listTitles(id);
    announce(`${option.value} ${isKnown ? "is already in the list" : "was added"}`);
    refresh();
    return "";
  }

  function listTitles(id) {
    byId(id).replaceChildren(...selection[id].map(({value}, index) => {
      const remove = makeNode("button", {type: "button", className: "remove", ariaLabel: `Remove ${value}`}, "×");
      remove.addEventListener("click", () => {
        selection[id].splice(index, 1);
        listTitles(id);
        (byId(id).querySelectorAll("button")[index] ?? byId(`${id}-title`)).focus();
        refresh();
      });
      return makeNode("li", {}, makeNode("span", {textContent: value}), remove);
    }));
  }

  /** Show the inputs that belong to the chosen sources. */
  function update() {
    const fromTitles = byId("source-titles").checked, fromSelected = byId("items-selected").checked;
    [byId("user-part").hidden, byId("titles-part").hidden] = [fromTitles, !fromTitles];
    [byId("top-part").hidden, byId("candidates-part").hidden] = [fromSelected, !fromSelected];
    byId("items-note").textContent = fromSelected ? `${selection.candidates.length} selected` : `best ${byId("top").value}`;
  }

  /** Return what a link holds: the user or the titles, and the selected items or the number of results. */
  function read() {
    const fromTitles = byId("source-titles").checked, fromSelected = byId("items-selected").checked;
    return {
      ...(fromTitles ? {history: selection.history} : {user: selection.user}),
      ...(fromSelected ? {candidates: selection.candidates} : {top: byId("top").value}),
    };
  }

  /** Return what the user may have changed since an earlier call, by inputs. */
  function snapshot() {
    return {
      user: byId("user").value,
      source: byId("source-titles").checked,
      items: byId("items-selected").checked,
      top: byId("top").value,
      ...Object.fromEntries(LISTS.map((id) => [id, JSON.stringify(selection[id])])),
    };
  }

  /** Set the inputs to what a link holds, except those that the user has changed since `before`, a snapshot. */
  function write({user = "", top, ...lists}, before) {
    const now = snapshot(), isUnchanged = (name) => now[name] === before[name];
    for (const id of LISTS.filter(isUnchanged)) {
      selection[id] = lists[id] ?? [];
      listTitles(id);
    }
    if (isUnchanged("source")) byId(lists.history ? "source-titles" : "source-user").checked = true;
    if (isUnchanged("items")) byId(lists.candidates ? "items-selected" : "items-catalogue").checked = true;
    const isOffered = [...byId("top").options].some(({value}) => value === top);
    if (isUnchanged("top") && isOffered) byId("top").value = top;
    if (!isUnchanged("user")) return;
    byId("user").value = selection.user = user;
    byId("latest-part").hidden = true;
    if (user) showLatestItems();
  }

  /** Return path and body of the request without the adapters, or null if an input is missing. */
  function question() {
    const {user, history, candidates, top} = read();
    if (!(history ? history.length : user) || candidates?.length === 0) return null;
    const items = (options) => options.map(({item, value}) => item ?? {title: value});
    const body = {
      ...(history ? {history: items(history)} : {user_id: user}),
      ...(candidates ? {candidates: items(candidates)} : {top: Number(top)}),
    };
    return {path: candidates ? "/v1/rank" : "/v1/recommend", body};
  }

  combobox(byId("user"), searchUsers, selectUser, {minLength: 0, announce, fail});
  for (const id of LISTS) {
    combobox(byId(`${id}-title`), searchTitles, (option) => addTitle(id, option), {minLength: 1, announce, fail});
  }
  combobox(byId("event-item"), searchTitles, selectEvent, {minLength: 1, onlyFound: true, announce, fail});
  byId("event-item").addEventListener("input", () => selectEvent(null));
  byId("event-form").addEventListener("submit", (submission) => {
    submission.preventDefault();
    if (event) addEvent();
  });
  byId("user").addEventListener("change", () => {
    const value = byId("user").value.trim(); // typed without Enter
    if (value && value !== selection.user) selectUser({value});
  });

  return {selectUser, update, read, snapshot, write, question};
}
