// The page: it sends what the user selects to the service and shows the ranking.
//
// All data of the service is inserted as text, never as markup; the page's Content-Security-Policy enforces that.

import {combobox} from "/combobox.js";
import {byId, formatCount, formatNumber, formatPercent, makeNode} from "/dom.js";
import {makeParts} from "/parts.js";
import {showWeights} from "/weights.js";

const KEY = "lorarec-api-key", DEBOUNCE_MS = 120, MAX_SUGGESTIONS = 10, MAX_QUERY = 100;
const selection = {user: "", history: [], candidates: []}, details = new Map(), kinds = new Map();
let fusion = null, shownQuestion = "", requestId = 0, timer, controller;

const announce = (text) => (byId("status").textContent = text);
const showError = (text) => (byId("error").textContent = text);

// Requests

async function call(path, body, signal) {
  const key = sessionStorage.getItem(KEY), headers = {};
  // A header is a string of bytes, so the key is encoded in UTF-8.
  if (key) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body)});
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The service cannot be reached: is it running?");
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  throw new Error(errorMessage(response, {field: content.errors?.[0]?.field, message: content.detail}, key));
}

function errorMessage({status, headers}, {field, message}, key) {
  if (status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
    return key ? "The API key is wrong." : "The service requires an API key.";
  }
  if (status === 429) return `The service is busy: try again in ${headers.get("Retry-After") ?? "a few"} s.`;
  if (status === 404 && field === "user_id") return `User “${selection.user}” has no history.`;
  return message ? `Error: ${message}.` : `The service failed with status ${status}.`;
}

async function adapterDetails(name) {
  if (!details.has(name)) details.set(name, await call(`/v1/adapters/${encodeURIComponent(name)}`));
  return details.get(name);
}

function search(path, text) {
  const query = [...text].slice(0, MAX_QUERY).join("");
  return call(`${path}?limit=${MAX_SUGGESTIONS}&query=${encodeURIComponent(query)}`);
}

const searchUsers = async (text) => (await search("/v1/users", text)).users.map((value) => ({value}));
const searchTitles = async (text) =>
  (await search("/v1/items", text)).items.map(({item_id: item, title: value}) => ({item, value}));

// Inputs

function selectUser({value}) {
  selection.user = value;
  refresh();
  showLatestItems(value);
  return value;
}

async function showLatestItems(user) {
  const path = `/v1/history?limit=${MAX_SUGGESTIONS}&user_id=${encodeURIComponent(user)}`;
  const {items} = await call(path).catch(() => ({items: []})); // the request for the ranking shows the error
  if (selection.user !== user) return;
  byId("latest").replaceChildren(...items.map(({title}) => makeNode("li", {textContent: title})));
  byId("latest-part").hidden = !items.length;
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

/** Return path and body of the request without the adapters, or null if an input is missing. */
function currentQuestion() {
  const fromTitles = byId("source-titles").checked, fromSelected = byId("items-selected").checked;
  if (!(fromTitles ? selection.history.length : selection.user)) return null;
  if (fromSelected && !selection.candidates.length) return null;
  const items = (id) => selection[id].map(({item, value}) => item ?? {title: value});
  const history = fromTitles ? {history: items("history")} : {user_id: selection.user};
  const candidates = fromSelected ? {candidates: items("candidates")} : {top: Number(byId("top").value)};
  return {path: fromSelected ? "/v1/rank" : "/v1/recommend", body: {...history, ...candidates}};
}

/** Return the weight of each selected adapter, and show the slider if there are two; undefined if the fusion ranks. */
function currentMixture() {
  const isFused = fusion !== null && byId("system-fusion").checked;
  byId("fusion-part").hidden = !isFused;
  byId("pair-part").hidden = isFused;
  if (isFused) {
    byId("slider-part").hidden = byId("personal-part").hidden = true;
    return undefined;
  }
  const first = byId("first").value, second = byId("second").value, weight = byId("slider").value / 100;
  const isPersonal = kinds.get(first) === "personal";
  const isMixed = first && second && first !== second && !isPersonal;
  byId("slider-part").hidden = !isMixed;
  byId("second-part").hidden = isPersonal;
  byId("personal-part").hidden = !isPersonal;
  if (!isMixed) return Object.fromEntries([first || second].filter(Boolean).map((name) => [name, 1]));
  const labels = [`${first} ${formatNumber(1 - weight)}`, `${second} ${formatNumber(weight)}`];
  [byId("first-weight").textContent, byId("second-weight").textContent] = labels;
  byId("slider").setAttribute("aria-valuetext", labels.join(", "));
  return Object.fromEntries([[first, 1 - weight], [second, weight]]);
}

function refresh() {
  const fromTitles = byId("source-titles").checked, fromSelected = byId("items-selected").checked;
  [byId("user-part").hidden, byId("titles-part").hidden] = [fromTitles, !fromTitles];
  [byId("top-part").hidden, byId("candidates-part").hidden] = [fromSelected, !fromSelected];
  const adapter = currentMixture();
  clearTimeout(timer);
  timer = setTimeout(() => requestRanking(adapter), DEBOUNCE_MS);
}

async function requestRanking(adapter) {
  const id = ++requestId, question = currentQuestion(), empty = {ranking: [], mixture: {}, personal: {}};
  controller?.abort();
  controller = new AbortController();
  showError("");
  byId("results").ariaBusy = String(question !== null);
  try {
    const response = question ? await call(question.path, {...question.body, adapter}, controller.signal) : empty;
    const adapters = await Promise.all(Object.keys(response.mixture).map(adapterDetails));
    if (id !== requestId) return; // a newer request has been sent
    showRanking(response.ranking, JSON.stringify(question?.body));
    showWeights(response, adapters, question?.body.user_id);
    byId("weights-part").hidden = response.fusion || !response.ranking.length;
  } catch (error) {
    if (id === requestId) showError(error.message);
  }
  if (id === requestId) byId("results").ariaBusy = "false";
}

// Results

function showRanking(ranking, question) {
  const largestPart = Math.max(...ranking.flatMap(({parts}) => Object.values(parts).map(Math.abs)));
  const list = byId("ranking"), largest = ranking[0]?.probability, isSame = question === shownQuestion;
  const before = new Map([...list.children].map((node, index) => [node.dataset.item, {index, top: node.offsetTop}]));
  list.replaceChildren(...ranking.map(({item_id, title, probability, parts}, index) => {
    const item = item_id ?? `\0${title}`, previous = isSame ? before.get(item)?.index ?? index : index;
    const moved = previous === index ? "" : `${previous > index ? "▲" : "▼"} ${Math.abs(previous - index)}`;
    const bar = makeNode("span", {className: "bar"});
    bar.style.width = `${(100 * probability) / largest}%`;
    const node = makeNode("li", {},
      makeNode("span", {className: "title", textContent: title}),
      makeNode("span", {className: "moved", ariaHidden: "true", textContent: moved}),
      makeNode("span", {className: "probability", textContent: formatPercent(probability)}), bar);
    node.dataset.item = item;
    if (Object.keys(parts).length) {
      node.append(makeParts(item, title, parts, fusion?.recommenders ?? {}, largestPart, index === 0));
    }
    return node;
  }));
  if (isSame) animateMoves([...list.children], before);
  shownQuestion = question;
  byId("hint").hidden = ranking.length > 0;
  byId("hint").textContent = question ? "There are no items to rank." : "Choose a user or add titles.";
  if (!ranking.length) return;
  announce(`${formatCount(ranking.length, "item")}, the first is ${ranking[0].title}, ${formatPercent(largest)}`);
}

function animateMoves(nodes, before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const node of nodes) {
    const distance = (before.get(node.dataset.item)?.top ?? node.offsetTop) - node.offsetTop;
    if (distance) {
      node.animate({transform: [`translateY(${distance}px)`, "none"]}, {duration: 250, easing: "ease-out"});
    }
  }
}

// Start

async function start() {
  const {loaded, fusion: description} = await call("/v1/adapters");
  fusion = description;
  byId("system-part").hidden = fusion === null || !loaded.length;
  byId("system-fusion").checked = true;
  byId("fusion-part").textContent =
    fusion && `A learned last stage over the scores of ${Object.keys(fusion.recommenders).join(", ")}.`;
  loaded.forEach(({name, kind}) => kinds.set(name, kind));
  const plain = loaded.filter(({kind}) => kind === "adapter");
  const first = plain.find(({name}) => name === "general") ?? plain[0] ?? loaded[0];
  const others = plain.filter(({name, readout}) => name !== first.name && readout === first.readout);
  const second = others.find(({name}) => name === "specific") ?? others[0];
  for (const [id, adapters, selected, none] of [
    ["first", loaded, first, "backbone only"], ["second", plain, second, "none"],
  ]) {
    const options = adapters.map(({name}) => makeNode("option", {value: name, textContent: name}));
    byId(id).replaceChildren(...options, makeNode("option", {value: "", textContent: none}));
    byId(id).value = selected?.name ?? "";
  }
  byId("key-form").hidden = true;
  byId("forget").hidden = !sessionStorage.getItem(KEY);
  refresh();
}

const fail = (error) => showError(error.message);
combobox(byId("user"), searchUsers, selectUser, {minLength: 0, announce, fail});
for (const id of ["history", "candidates"]) {
  combobox(byId(`${id}-title`), searchTitles, (option) => addTitle(id, option), {minLength: 1, announce, fail});
}
document.querySelector(".inputs").addEventListener("change", ({target}) => {
  const user = target.id === "user" && target.value.trim(); // typed without Enter
  user && user !== selection.user ? selectUser({value: user}) : refresh();
});
byId("slider").addEventListener("input", refresh);
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  start().catch(fail);
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
start().catch(fail);
