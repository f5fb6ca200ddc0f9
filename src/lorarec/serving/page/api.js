// Requests to the service.

const KEY = "lorarec-api-key", MAX_SUGGESTIONS = 10, MAX_QUERY = 100;

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const storeKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/**
 * Send a request and return the JSON of the response.
 * @param {string} path - Path of the service, below the folder of the page, where a proxy may have put it.
 * @param {Object=} body - Body of a POST request; a GET request is sent without one.
 * @param {AbortSignal=} signal - Signal that ends the request.
 * @throws {Error} One line for the user; its `status` is that of the response.
 */
export async function call(path, body, signal) {
  const key = sessionStorage.getItem(KEY), headers = {};
  // A header is a string of bytes, so the key is encoded in UTF-8.
  if (key) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`.${path}`, {method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body)});
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The service cannot be reached: is it running?");
  }
  const content = await response.json().catch(() => ({}));
  if (response.ok) return content;
  const fault = content.errors?.[0] ?? {message: content.detail};
  throw Object.assign(new Error(errorMessage(response, fault, body, key)), {status: response.status});
}

function errorMessage({status, headers}, {field, message}, body, key) {
  if (status === 401) return key ? "The API key is wrong." : "The service requires an API key.";
  if (status === 429) return `The service is busy: try again in ${headers.get("Retry-After") ?? "a few"} s.`;
  if (status === 404 && field === "user_id" && body) return `User “${body.user_id}” has no history.`;
  return message ? `Error: ${message}.` : `The service failed with status ${status}.`;
}

function search(path, text, limit) {
  const query = [...text].slice(0, MAX_QUERY).join("");
  return call(`${path}?limit=${limit}&query=${encodeURIComponent(query)}`);
}

/** Return users whose ids hold all words of a text, as options of a combobox. */
export const searchUsers = async (text, limit = MAX_SUGGESTIONS) =>
  (await search("/v1/users", text, limit)).users.map((value) => ({value}));

/** Return items whose titles hold all words of a text, as options of a combobox. */
export const searchTitles = async (text) =>
  (await search("/v1/items", text, MAX_SUGGESTIONS)).items.map(({item_id: item, title: value}) => ({item, value}));

/** Return the titles of a user's latest items, latest first. */
export async function latestTitles(user) {
  const {items} = await call(`/v1/history?limit=${MAX_SUGGESTIONS}&user_id=${encodeURIComponent(user)}`);
  return items.map(({title}) => title);
}
