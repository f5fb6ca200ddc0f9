// The page: it sends what the user selects to the service and shows the ranking, or the rankings of two mixtures.
//
// All data of the service is inserted as text, never as markup; the page's Content-Security-Policy enforces that.

import {call, forgetKey, hasKey, searchUsers, storeKey} from "./api.js";
import {markSameItem, showComparison} from "./comparison.js";
import {byId, formatCount, formatPercent, makeNode} from "./dom.js";
import {connectInputs} from "./inputs.js";
import {readLink, writeLink} from "./link.js";
import {copyControls, mixtureControls} from "./mixture.js";
import {trackProgress} from "./progress.js";
import {showRanking} from "./ranking.js";
import {showWeights} from "./weights.js";

const DEBOUNCE_MS = 120, EXAMPLES = 3, WIDE = matchMedia("(min-width: 56rem)");
const details = new Map(), mixtures = [mixtureControls()];
let service = {loaded: [], fusion: null}, shownQuestion = "", requestId = 0, notice = "", timer, controller;

const announce = (text) => (byId("status").textContent = text);
const showError = (text) => (byId("error").textContent = text);

function fail(error) {
  showError(error.message);
  if (error.status !== 401) return;
  byId("key-form").hidden = false;
  byId("key").focus();
}

const inputs = connectInputs({refresh, announce, fail});
const currentLink = () => ({fragment: location.hash, before: inputs.snapshot()});
let openedLink = currentLink(); // null as soon as the adapters are known and it has been followed

// Requests

function refresh() {
  inputs.update();
  mixtures.forEach(({update}) => update());
  clearTimeout(timer);
  if (openedLink === null) timer = setTimeout(requestRanking, DEBOUNCE_MS);
}

async function requestRanking() {
  const id = ++requestId, question = inputs.question(), adapters = mixtures.map(({weights}) => weights());
  controller?.abort();
  controller = new AbortController();
  const {signal} = controller, finish = trackProgress(question !== null);
  showError(notice);
  notice = "";
  updateLink(question !== null);
  try {
    const ask = (adapter) => call(question.path, {...question.body, adapter}, signal);
    const responses = question ? await Promise.all(adapters.map(ask)) : [];
    const loaded = await Promise.all(Object.keys(responses[0]?.mixture ?? {}).map(adapterDetails));
    if (id !== requestId) return; // a newer request has been sent
    showHints(question, responses[0]);
    if (responses.length > 1) showTwo(responses);
    else showOne(responses[0], question, loaded, (item) => explain(question, adapters[0], item, signal));
    finish();
  } catch (error) {
    if (id !== requestId) return;
    fail(error);
    finish(error);
  }
}

async function adapterDetails(name) {
  if (!details.has(name)) details.set(name, await call(`/v1/adapters/${encodeURIComponent(name)}`));
  return details.get(name);
}

/** Request the explanation of an item of the answer to a question. */
function explain({path, body: {top, ...body}}, adapter, {item_id: item, candidate}, signal) {
  const explained = path === "/v1/rank" ? {candidate} : {item_id: item};
  return call("/v1/explain", {...body, adapter, ...explained}, signal);
}

// Results

function showHints(question, response) {
  const isEmpty = !response?.ranking.length;
  byId("hint").hidden = !isEmpty;
  byId("hint").textContent = question ? "There are no items to rank." : "Choose a user or add titles. For example:";
  byId("examples").hidden = question !== null;
}

function showOne(response, question, loaded, explainItem) {
  const list = byId("ranking"), ranking = response?.ranking ?? [], key = JSON.stringify(question?.body);
  byId("comparison").hidden = true;
  byId("comparison").replaceChildren();
  byId("weights-part").hidden = !ranking.length || response.fusion;
  const settings = {isSame: key === shownQuestion, kinds: service.fusion?.recommenders ?? {}, explain: explainItem};
  const changes = describeChanges(showRanking(list, ranking, settings));
  shownQuestion = key;
  byId("changes").textContent = changes;
  if (!ranking.length) return;
  showWeights(response, loaded, question.body.user_id);
  const [{title, probability}] = ranking;
  announce(`${formatCount(ranking.length, "item")}, the first is ${title}, ${formatPercent(probability)}. ${changes}`);
}

function describeChanges({moved, entered}) {
  if (!moved && !entered) return "";
  return `Since the last ranking, ${formatCount(moved, "item")} moved and ${entered} entered.`;
}

function showTwo(responses) {
  const rankings = responses.map(({ranking}) => ranking), names = mixtures.map(({describe}) => describe());
  byId("weights-part").hidden = true;
  byId("ranking").replaceChildren();
  shownQuestion = "";
  byId("comparison").hidden = rankings.every(({length}) => !length);
  byId("changes").textContent = showComparison(byId("comparison"), rankings, names);
  announce(byId("changes").textContent);
}

function setComparison(isOn) {
  byId("compare").checked = isOn;
  if (isOn && mixtures.length === 1) {
    copyControls("-b", "B");
    mixtures.push(mixtureControls("-b"));
    mixtures[1].offer(service.loaded, service.fusion);
    mixtures[1].write({...mixtures[1].read(), system: "adapters", weight: 100});
  } else if (!isOn && mixtures.length === 2) {
    byId("mixture-b").remove();
    mixtures.pop();
  }
  document.querySelectorAll(".mixture > .letter").forEach((letter) => (letter.hidden = !isOn));
}

// The link

function updateLink(isAsked) {
  const fragment = isAsked ? writeLink({...inputs.read(), mixtures: mixtures.map(({read}) => read())}) : "";
  history.replaceState(null, "", `${location.pathname}${fragment}`);
  byId("copy").hidden = !isAsked || !navigator.clipboard;
}

/** Set the page to the state of a link, but leave what the user has changed since `before`, a snapshot of the inputs. */
async function followLink({fragment, before}) {
  const {mixtures: values, ...state} = await readLink(fragment);
  openedLink = null;
  inputs.write(state, before);
  setComparison(values.length > 1);
  const missing = values.flatMap((value, place) => mixtures[place].write(value));
  if (missing.length) notice = `The link names what is not loaded here: ${missing.join(", ")}. Others rank instead.`;
  refresh();
}

// Start

function start() {
  fillPage().catch((error) => {
    if (error.status !== 401) openedLink = null; // with a key, the page is filled again
    fail(error);
  });
}

async function fillPage() {
  service = await call("/v1/adapters");
  mixtures.forEach(({offer}) => offer(service.loaded, service.fusion));
  byId("key-form").hidden = true;
  byId("forget").hidden = !hasKey();
  await followLink(openedLink ?? currentLink());
  const users = await searchUsers("", EXAMPLES).catch(() => []);
  byId("examples").replaceChildren(...users.map(({value}) => {
    const button = makeNode("button", {type: "button", className: "quiet", textContent: `User ${value}`});
    button.addEventListener("click", () => {
      byId("source-user").checked = true;
      inputs.selectUser({value});
      byId("results").focus();
    });
    return button;
  }));
}

const foldForWidth = () => document.querySelectorAll(".folded").forEach((node) => (node.open = WIDE.matches));
foldForWidth();
WIDE.addEventListener("change", foldForWidth);
document.querySelector(".columns").addEventListener("change", ({target}) => {
  if (target.id === "compare") setComparison(target.checked);
  if (!target.matches("[role=combobox]")) refresh();
});
byId("mixtures").addEventListener("input", ({target}) => target.type === "range" && refresh());
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href);
  announce("The link was copied");
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment of the URL is the link to the state of the page
  byId("results").focus();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  storeKey(byId("key").value.trim());
  byId("key").value = "";
  start();
});
byId("forget").addEventListener("click", () => {
  forgetKey();
  location.reload();
});
addEventListener("hashchange", () => followLink(currentLink()).catch(fail));
markSameItem(byId("comparison"));
start();
