// What the server is asked, and what it says when it will not.

const TOKEN = "realm-token";

/** An answer that is an error: `code` is for programs, `message` for people. */
class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askForToken = async () => false;

/** Set what asks the person for a token; it resolves to whether there is a new one. */
export function onTokenWanted(ask) {
  askForToken = ask;
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

function headers(json) {
  const token = sessionStorage.getItem(TOKEN);
  return {
    Accept: "application/json",
    ...(json === undefined ? {} : { "Content-Type": "application/json" }),
    ...(token ? { Authorization: `Bearer ${token}` } : {}),
  };
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const told = body?.error;
  const message = told?.message ?? `The server says ${response.status} ${response.statusText}.`;
  return new ApiError(response.status, told?.code ?? `http_${response.status}`, message);
}

async function send(method, path, { json, form, signal }) {
  try {
    return await fetch(path, {
      method,
      signal,
      headers: headers(json),
      body: form ?? (json === undefined ? undefined : JSON.stringify(json)),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const message = "The server does not answer. Is realm serve still running?";
    throw new ApiError(0, "unreachable", message);
  }
}

/** Return what the server says to one request, as JSON. */
async function request(method, path, options = {}) {
  const response = await send(method, path, options);
  if (response.ok) return response.json();
  const error = await errorOf(response);
  if (error.status === 401 && (await askForToken(error))) return request(method, path, options);
  throw error;
}

/** Return the path of a document: its slashes stay, all else is escaped. */
function documentPath(id) {
  return `/documents/${id.split("/").map(encodeURIComponent).join("/")}`;
}

export const api = {
  status: () => request("GET", "/status"),
  answer: (json, signal) => request("POST", "/answer", { json, signal }),
  explain: (json, signal) => request("POST", "/explain", { json, signal }),
  documents: () => request("GET", "/documents"),
  document: (id) => request("GET", documentPath(id)),
  addDocument: (json) => request("POST", "/documents", { json }),
  removeDocument: (id) => request("DELETE", documentPath(id)),
  progress: () => request("GET", "/documents/progress"),
  runs: () => request("GET", "/training"),
  curves: (name, after) =>
    request("GET", `/training/${name.split("/").map(encodeURIComponent).join("/")}?after=${after}`),
  addFile: (file) => {
    const form = new FormData();
    form.append("files", file, file.name);
    return request("POST", "/documents", { form });
  },
};
