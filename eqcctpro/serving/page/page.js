// Status, signing in, a file's waveforms with curves and picks, and the stream of picks; nothing is
// fetched from anywhere but the service itself.

import { plot } from "./plot.js";

const $ = (id) => document.getElementById(id);
const base = document.baseURI.replace(/[^/]*$/, "");
const STREAM_ROWS = 12;
const FEW_PICKS = 6; // that are listed without being asked for
let key = sessionStorage.getItem("key") || "";
let shown = null; // what was picked: the body and the query, for downloads
let picking = null;
let listening = new AbortController();

function ask(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (key) headers["X-API-Key"] = key;
  return fetch(base + path, { ...options, headers });
}

function say(place, text) {
  if (place.textContent !== text) place.textContent = text; // what is said again is read out again
}

async function explain(response) {
  if (response.status === 401) {
    openAccess(true);
    return "please sign in";
  }
  try {
    const problem = await response.json();
    return problem.hint ? `${problem.detail} (${problem.hint})` : problem.detail;
  } catch {
    return `the service answered ${response.status}`;
  }
}

// Who asks

function openAccess(open) {
  $("access").hidden = !open;
  $("sign-in").setAttribute("aria-expanded", open);
  if (!open) say($("access-message"), "");
}

async function introduce() {
  const response = await ask("v1/session").catch(() => null);
  if (!response) return;
  const found = response.ok ? await response.json() : { kind: "nobody", sign_in: response.status === 401 };
  const known = found.kind === "user" || found.kind === "key";
  say($("name"), known ? `${found.name}${found.kind === "key" ? " (key)" : ""}` : "");
  $("sign-out").hidden = !known;
  $("sign-in").hidden = known || !found.sign_in;
  if (known) openAccess(false);
  else if (response.status === 401) openAccess(true);
}

async function isSomebodyElse() {
  forget();
  $("stream").tBodies[0].replaceChildren();
  listening.abort();
  await Promise.all([introduce(), refresh()]);
}

function forget() {
  if (picking) picking.abort();
  shown = null;
  $("found").hidden = true;
  $("results").replaceChildren();
  say($("message"), "");
}

$("sign-in").onclick = () => {
  openAccess($("access").hidden);
  if (!$("access").hidden) $("user").focus();
};
$("user-form").onsubmit = async (event) => {
  event.preventDefault();
  const bytes = new TextEncoder().encode(`${$("user").value}:${$("password").value}`);
  const response = await fetch(`${base}v1/session`, {
    method: "POST",
    // The second header: a browser that hears of Basic asks for a password by itself.
    headers: { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}`, "X-Requested-With": "page" },
  }).catch(() => null);
  if (!response) { say($("access-message"), "the service does not answer"); return; }
  if (!response.ok) {
    const wrong = response.status === 401;
    say($("access-message"), wrong ? "the name or the password is wrong: please try again" : await explain(response));
    $("password").select();
    return;
  }
  $("password").value = "";
  key = "";
  sessionStorage.removeItem("key");
  isSomebodyElse();
};
$("key-form").onsubmit = async (event) => {
  event.preventDefault();
  const before = key;
  key = $("key").value.trim();
  const response = await ask("v1/session").catch(() => null);
  const found = response && response.ok ? await response.json() : null;
  if (!found || found.kind !== "key") {
    key = before;
    say($("access-message"), "nobody has this key");
    $("key").select();
    return;
  }
  sessionStorage.setItem("key", key);
  $("key").value = "";
  isSomebodyElse();
};
$("sign-out").onclick = async () => {
  await fetch(`${base}v1/session`, { method: "DELETE" }).catch(() => null);
  key = "";
  sessionStorage.removeItem("key");
  await isSomebodyElse();
  (document.body.classList.contains("closed") ? $("user") : $("sign-in")).focus();
};

// How the service is

function fact(list, name, value) {
  let term = [...list.querySelectorAll("dt")].find((one) => one.textContent === name);
  if (!term) {
    const box = document.createElement("div");
    term = document.createElement("dt");
    name.split("/").forEach((part, at) => term.append(...(at ? ["/", document.createElement("wbr")] : []), part));
    box.append(term, document.createElement("dd"));
    list.append(box);
  }
  say(term.nextElementSibling, String(value));
}

function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

async function refresh() {
  const state = $("state");
  try {
    const response = await ask("v1/status");
    document.body.classList.toggle("closed", response.status === 401);
    if (!response.ok) {
      state.className = "bad";
      $("facts").replaceChildren();
      say(state, response.status === 401 ? "asks who you are" : await explain(response));
      if (response.status === 401 && $("sign-in").hidden) introduce();
      return;
    }
    const status = await response.json();
    state.className = status.ready ? "good" : "bad";
    say(state, status.ready ? "picks" : `does not pick: ${status.reason}`);
    const list = $("facts");
    fact(list, "running for", duration(status.uptime_s));
    fact(list, "requests in progress", `${status.in_progress} of ${status.capacity}`);
    fact(list, "stations waiting", status.waiting);
    fact(list, "stations picked", status.stations);
    fact(list, "picks", status.picks);
    fact(list, "version", status.version);
    for (const model of status.models) fact(list, model.name, `${model.runtime}, ${model.device}`);
    choices(status.models);
  } catch {
    state.className = "bad";
    say(state, "the service does not answer");
  }
}

function choices(models) {
  const select = $("model");
  const names = models.map((one) => one.name);
  const same = names.join() === [...select.options].map((one) => one.value).join();
  if (same) return;
  const chosen = names.includes(select.value) ? select.value : names[0];
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = chosen;
  const suggest = () => {
    const { thresholds } = models.find((one) => one.name === select.value);
    for (const phase of ["P", "S"]) $(phase.toLowerCase()).placeholder = thresholds[phase] ?? "";
  };
  select.onchange = suggest;
  suggest();
}

// Picking

async function pick(body) {
  forget();
  const mine = (picking = new AbortController());
  const query = new URLSearchParams({ private: "true" });
  if ($("model").value) query.set("model", $("model").value);
  for (const phase of ["p", "s"]) if ($(phase).value) query.set(`${phase}_threshold`, $(phase).value);
  $("found").hidden = false;
  $("csv").disabled = $("quakeml").disabled = true;
  say($("summary"), "picking");
  const response = await post(`v1/annotate?${query}&waveforms=true`, body, "application/json", mine.signal);
  if (mine !== picking || mine.signal.aborted) return; // another file has come
  if (response && response.ok) {
    shown = { body, query };
    show(await response.json());
  } else {
    $("found").hidden = true;
    say($("message"), response ? await explain(response) : "the service does not answer");
  }
}

function post(path, body, accept, signal) {
  const headers = { "Content-Type": "application/vnd.fdsn.mseed", Accept: accept };
  return ask(path, { method: "POST", body, headers, signal }).catch(() => null);
}

function nameOf(item) {
  return [item.network, item.station, item.location, item.channel].join(".");
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const when = (time) => time.replace("T", " ").slice(0, 23); // to the millisecond

function show(answer) {
  say($("summary"), `${count(answer.picks.length, "pick")} of ${count(answer.stations.length, "station")}`);
  $("csv").disabled = $("quakeml").disabled = !answer.picks.length;
  const byName = grouped(answer.picks);
  for (const station of answer.stations) {
    const picks = byName.get(nameOf(station)) || [];
    $("results").append(figure(station, picks, answer));
  }
  document.body.dataset.drawn = answer.request_id;
}

function grouped(picks) {
  const found = new Map();
  for (const one of picks) {
    if (!found.has(nameOf(one))) found.set(nameOf(one), []);
    found.get(nameOf(one)).push(one);
  }
  return found;
}

function figure(station, picks, answer) {
  const name = nameOf(station);
  const made = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const rest = document.createElement("span");
  caption.textContent = `${name} `;
  rest.textContent =
    station.status === "done" ? count(picks.length, "pick") : `${station.status}: ${station.reason || station.error}`;
  caption.append(rest);
  made.append(caption);
  if (station.status !== "done") return made;
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Waveforms, curves and ${count(picks.length, "pick")} of ${name}`);
  canvas.setAttribute("aria-describedby", "hint");
  made.append(canvas);
  if (picks.length) made.append(listed(picks, name));
  const does = plot(canvas, {
    waves: answer.waveforms.filter((one) => nameOf(one).startsWith(name)),
    curves: answer.curves.filter((one) => nameOf(one) === name),
    picks,
  });
  const buttons = [["+", "Zoom in", () => does.zoom(0.5)], ["\u2212", "Zoom out", () => does.zoom(2)], ["all", "Show all", does.all]];
  const group = document.createElement("div");
  group.className = "buttons";
  for (const [text, label, action] of buttons) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", `${label}, ${name}`);
    button.onclick = action;
    group.append(button);
  }
  caption.append(group);
  return made;
}

function listed(picks, name) {
  const box = document.createElement("details");
  const summary = document.createElement("summary");
  const inside = document.createElement("div");
  const table = document.createElement("table");
  box.open = picks.length <= FEW_PICKS;
  summary.textContent = "list";
  summary.setAttribute("aria-label", `List of the picks of ${name}`);
  inside.className = "listed";
  const head = table.createTHead().insertRow();
  for (const text of ["phase", "time", "probability"]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const one of picks) {
    const row = body.insertRow();
    for (const text of [one.phase, when(one.time), one.probability.toFixed(3)]) row.insertCell().textContent = text;
    row.cells[0].className = one.phase;
  }
  inside.append(table);
  box.append(summary, inside);
  return box;
}

// The service writes the file, as it does for all: the same bytes with the same settings.
async function download(button, accept, file) {
  const { body, query } = shown;
  button.disabled = true;
  const response = await post(`v1/pick?${query}`, body, accept);
  button.disabled = false;
  if (!response || !response.ok) {
    say($("message"), response ? await explain(response) : "the service does not answer");
    return;
  }
  say($("message"), "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

$("csv").onclick = () => download($("csv"), "text/csv", "picks.csv");
$("quakeml").onclick = () => download($("quakeml"), "application/xml", "picks.xml");

async function together(files) {
  const parts = await Promise.all([...files].map((file) => file.arrayBuffer()));
  return new Blob(parts);
}

$("file").onchange = async () => {
  if (!$("file").files.length) return;
  const body = await together($("file").files);
  $("file").value = ""; // the same file may be chosen again
  pick(body);
};
$("example").onclick = async () => {
  const response = await ask("v1/example").catch(() => null);
  if (response && response.ok) pick(await response.blob());
  else say($("message"), response ? await explain(response) : "the service does not answer");
};
const drop = $("drop");
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) pick(await together(event.dataTransfer.files));
};

// The stream

async function listen() {
  let last = "";
  for (;;) {
    const { signal } = listening;
    try {
      const response = await ask("v1/picks/stream", { headers: last ? { "Last-Event-ID": last } : {}, signal });
      if (!response.ok) throw new Error(response.status === 401 ? "sign in to see them" : await explain(response));
      say($("stream-state"), "listening");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) last = heard(event) || last;
      }
    } catch (error) {
      if (!signal.aborted) say($("stream-state"), error.message || "not connected");
    }
    if (signal.aborted) {
      // Somebody else asks, who has a stream of their own.
      last = "";
      listening = new AbortController();
    } else await new Promise((resolve) => { setTimeout(resolve, 3000); signal.addEventListener("abort", resolve); });
  }
}

function heard(event) {
  const lines = Object.fromEntries(event.split("\n").map((text) => text.split(/: (.*)/s).slice(0, 2)));
  if (!lines.data) return "";
  const one = JSON.parse(lines.data);
  const body = $("stream").tBodies[0];
  const row = body.insertRow(0);
  for (const text of [nameOf(one), one.phase, when(one.time), one.probability.toFixed(3)]) row.insertCell().textContent = text;
  row.cells[1].className = one.phase;
  while (body.rows.length > STREAM_ROWS) body.deleteRow(-1);
  return lines.id;
}

introduce();
refresh();
setInterval(refresh, 3000);
listen();
