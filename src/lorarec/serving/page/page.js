// Whatever the service sends is shown as text: nothing here makes markup of it, and the page's policy forbids it.

import {combobox} from "/combobox.js";
import {byId, make, number, percent, plural} from "/dom.js";
import {showWeights} from "/weights.js";

const KEY = "lorarec-api-key", WAIT = 120, SHOWN = 10, LONGEST = 100;
const asked = {user: "", history: [], picked: []}, details = new Map(), kinds = new Map();
let shownSubject = "", turn = 0, timer, running;

const say = (words) => (byId("status").textContent = words);
const tell = (problem) => (byId("problem").textContent = problem);

// The service

async function call(path, body, signal) {
  const key = sessionStorage.getItem(KEY), headers = {};
  // Headers carry bytes: those of the key in UTF-8.
  if (key) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body)});
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The service cannot be reached: is it running?");
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  throw new Error(refusal(answer, told.error ?? {}, key));
}

function refusal({status, headers}, {field, message}, key) {
  if (status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
    return key ? "The service does not accept this API key." : "The service asks for an API key.";
  }
  if (status === 429) return `The service is busy: try again in ${headers.get("Retry-After") ?? "a few"} s.`;
  if (status === 404 && field === "user_id") return `The service knows no user “${asked.user}”.`;
  return message ? `The service says: ${message}.` : `The service failed with status ${status}.`;
}

async function detail(name) {
  if (!details.has(name)) details.set(name, await call(`/v1/adapters/${encodeURIComponent(name)}`));
  return details.get(name);
}

function search(path, words) {
  return call(`${path}?limit=${SHOWN}&query=${encodeURIComponent([...words].slice(0, LONGEST).join(""))}`);
}

const findUsers = async (words) => (await search("/v1/users", words)).users.map((value) => ({value}));
const findTitles = async (words) =>
  (await search("/v1/items", words)).items.map(({item_id: item, title: value}) => ({item, value}));

// What is asked

function chooseUser({value}) {
  asked.user = value;
  refresh();
  showLatest(value);
  return value;
}

async function showLatest(user) {
  const path = `/v1/history?limit=${SHOWN}&user_id=${encodeURIComponent(user)}`;
  const {items} = await call(path).catch(() => ({items: []})); // the ranking tells what is wrong
  if (asked.user !== user) return;
  byId("latest").replaceChildren(...items.map(({title}) => make("li", {textContent: title})));
  byId("latest-part").hidden = !items.length;
}

function chooseTitle(id, option) {
  const known = asked[id].some(({item, value}) => item === option.item && value === option.value);
  if (!known) asked[id].push(option);
  listTitles(id);
  say(`${option.value} ${known ? "is there already" : "added"}`);
  refresh();
  return "";
}

function listTitles(id) {
  byId(id).replaceChildren(...asked[id].map((entry, place) => {
    const remove = make("button", {type: "button", className: "remove", ariaLabel: `Remove ${entry.value}`}, "×");
    remove.addEventListener("click", () => {
      asked[id].splice(place, 1);
      listTitles(id);
      (byId(id).querySelectorAll("button")[place] ?? byId(`${id}-title`)).focus();
      refresh();
    });
    return make("li", {}, make("span", {textContent: entry.value}), remove);
  }));
}

function question() {
  const own = byId("whose-own").checked, picked = byId("what-picked").checked;
  if (!(own ? asked.history.length : asked.user) || (picked && !asked.picked.length)) return null;
  const items = (id) => asked[id].map(({item, value}) => item ?? {title: value});
  const whose = own ? {history: items("history")} : {user_id: asked.user};
  const what = picked ? {candidates: items("picked")} : {top: Number(byId("top").value)};
  return {path: picked ? "/v1/rank" : "/v1/recommend", subject: {...whose, ...what}};
}

function mixture() {
  const first = byId("first").value, second = byId("second").value, share = byId("slider").value / 100;
  const personal = kinds.get(first) === "personal";
  const both = first && second && first !== second && !personal;
  [byId("slider-part").hidden, byId("second-part").hidden, byId("personal-part").hidden] = [!both, personal, !personal];
  if (!both) return Object.fromEntries([first || second].filter(Boolean).map((name) => [name, 1]));
  const ends = [`${first} ${number(1 - share)}`, `${second} ${number(share)}`];
  [byId("first-share").textContent, byId("second-share").textContent] = ends;
  byId("slider").setAttribute("aria-valuetext", ends.join(", "));
  return Object.fromEntries([[first, 1 - share], [second, share]]);
}

function refresh() {
  const own = byId("whose-own").checked, picked = byId("what-picked").checked;
  [byId("user-part").hidden, byId("own-part").hidden] = [own, !own];
  [byId("top-part").hidden, byId("picked-part").hidden] = [picked, !picked];
  const adapter = mixture();
  clearTimeout(timer);
  timer = setTimeout(() => ask(adapter), WAIT);
}

async function ask(adapter) {
  const mine = ++turn, asks = question(), nothing = {ranking: [], mixture: {}, personal: {}};
  running?.abort();
  running = new AbortController();
  tell("");
  byId("results").ariaBusy = String(asks !== null);
  try {
    const answer = asks ? await call(asks.path, {...asks.subject, adapter}, running.signal) : nothing;
    const parts = await Promise.all(Object.keys(answer.mixture).map(detail));
    if (mine !== turn) return; // a newer question has been asked
    showRanking(answer.ranking, JSON.stringify(asks?.subject));
    showWeights(answer, parts, asks?.subject.user_id);
    byId("weights-part").hidden = !answer.ranking.length;
  } catch (error) {
    if (mine === turn) tell(error.message);
  }
  if (mine === turn) byId("results").ariaBusy = "false";
}

// What is answered

function showRanking(ranking, subject) {
  const list = byId("ranking"), most = ranking[0]?.probability;
  const before = new Map([...list.children].map((node, place) => [node.dataset.item, {place, top: node.offsetTop}]));
  list.replaceChildren(...ranking.map(({item_id, title, probability}, place) => {
    const item = item_id ?? `\0${title}`, was = subject === shownSubject ? before.get(item)?.place ?? place : place;
    const moved = was === place ? "" : `${was > place ? "▲" : "▼"} ${Math.abs(was - place)}`;
    const bar = make("span", {className: "bar"});
    bar.style.width = `${(100 * probability) / most}%`;
    const node = make("li", {}, make("span", {className: "title", textContent: title}),
      make("span", {className: "moved", ariaHidden: "true", textContent: moved}),
      make("span", {className: "share", textContent: percent(probability)}), bar);
    node.dataset.item = item;
    return node;
  }));
  if (subject === shownSubject) slide([...list.children], before);
  shownSubject = subject;
  byId("hint").hidden = ranking.length > 0;
  byId("hint").textContent = subject ? "Nothing is left to rank." : "Choose a user, or add titles.";
  if (ranking.length) say(`${plural(ranking.length, "item")}, first ${ranking[0].title}, ${percent(most)}`);
}

function slide(nodes, before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const node of nodes) {
    const way = (before.get(node.dataset.item)?.top ?? node.offsetTop) - node.offsetTop;
    if (way) node.animate({transform: [`translateY(${way}px)`, "none"]}, {duration: 250, easing: "ease-out"});
  }
}

async function start() {
  const {loaded} = await call("/v1/adapters");
  loaded.forEach(({name, kind}) => kinds.set(name, kind));
  const plain = loaded.filter(({kind}) => kind === "adapter");
  const first = plain.find(({name}) => name === "general") ?? plain[0] ?? loaded[0];
  const others = plain.filter(({name, readout}) => name !== first.name && readout === first.readout);
  const second = others.find(({name}) => name === "specific") ?? others[0];
  for (const [id, there, chosen, none] of [
    ["first", loaded, first, "the backbone alone"], ["second", plain, second, "none"],
  ]) {
    const options = there.map(({name}) => make("option", {value: name, textContent: name}));
    byId(id).replaceChildren(...options, make("option", {value: "", textContent: none}));
    byId(id).value = chosen?.name ?? "";
  }
  byId("key-form").hidden = true;
  byId("forget").hidden = !sessionStorage.getItem(KEY);
  refresh();
}

const fail = (error) => tell(error.message);
combobox(byId("user"), findUsers, chooseUser, {least: 0, say, fail});
for (const id of ["history", "picked"]) {
  combobox(byId(`${id}-title`), findTitles, (option) => chooseTitle(id, option), {least: 1, say, fail});
}
document.querySelector(".asking").addEventListener("change", ({target}) => {
  const typed = target.id === "user" && target.value.trim(); // without Enter
  typed && typed !== asked.user ? chooseUser({value: typed}) : refresh();
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
