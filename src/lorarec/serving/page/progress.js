// What the page shows while it waits for a ranking, and after one has failed.

import {byId} from "./dom.js";

const SLOW_SECONDS = 2;
let ticker;

/**
 * Show that a ranking is on its way.
 * @param {boolean} isAsked - Whether there is a request at all.
 * @returns {function(Error=)} Function that ends this; with an error, the former ranking is marked as out of date.
 */
export function trackProgress(isAsked) {
  const results = byId("results"), note = byId("progress-note"), began = Date.now();
  const show = () => {
    const seconds = Math.floor((Date.now() - began) / 1000);
    note.textContent = seconds < SLOW_SECONDS ? "Ranking …" : `Ranking … ${seconds} s`;
  };
  clearInterval(ticker);
  results.ariaBusy = String(isAsked);
  if (isAsked) {
    show();
    ticker = setInterval(show, 1000);
  }
  return (error) => {
    clearInterval(ticker);
    const isStale = Boolean(error) && results.querySelector("#ranking > li, #comparison tr") !== null;
    results.ariaBusy = "false";
    results.classList.toggle("stale", isStale);
    note.textContent = isStale ? "Out of date" : "";
  };
}
