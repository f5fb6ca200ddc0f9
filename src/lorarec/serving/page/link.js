// The state of the page in the fragment of its URL, which browsers do not send to the service.

import {searchTitles} from "./api.js";

const LISTS = ["history", "candidates"], PREFIXES = ["", "b-"];
const MIXTURE_FIELDS = ["system", "first", "second", "weight"];

/**
 * Return the fragment of a link to a state.
 * @param {{user: string?, history: Object[]?, candidates: Object[]?, top: string?, mixtures: Object[]}} state - User or
 *     titles of the history, selected items or the number of results, and the values of one or two mixtures.
 */
export function writeLink({user, top, mixtures, ...lists}) {
  const query = new URLSearchParams();
  if (user !== undefined) query.set("user", user);
  if (top !== undefined) query.set("top", top);
  for (const name of LISTS) {
    for (const {item, value} of lists[name] ?? []) {
      query.append(name, value);
      query.append(`${name}-id`, item ?? "");
    }
  }
  mixtures.forEach((mixture, place) =>
    MIXTURE_FIELDS.forEach((field) => query.set(`${PREFIXES[place]}${field}`, mixture[field])));
  return `#${query}`;
}

/**
 * Return the state that a fragment describes. Ids of items that do not have the title of the link are left out, so that
 * the page never ranks another item than it shows.
 */
export async function readLink(fragment) {
  const query = new URLSearchParams(fragment.slice(1));
  const state = {user: query.get("user") ?? undefined, top: query.get("top") ?? undefined};
  for (const name of LISTS) {
    const titles = query.getAll(name), ids = query.getAll(`${name}-id`);
    // One after the other, and each title once: a long link must not flood the service.
    const found = new Map();
    for (const title of ids.flatMap((id, place) => (id && titles[place] ? [titles[place]] : []))) {
      if (!found.has(title)) found.set(title, await searchTitles(title));
    }
    if (titles.length) state[name] = titles.map((value, place) => listedItem(value, ids[place], found.get(value) ?? []));
  }
  state.mixtures = PREFIXES.filter((prefix) => query.has(`${prefix}first`)).map((prefix) =>
    Object.fromEntries(MIXTURE_FIELDS.map((field) => [field, query.get(`${prefix}${field}`)])));
  return state;
}

function listedItem(title, id, options) {
  return options.find(({item, value}) => id && item === id && value === title) ?? {value: title};
}
