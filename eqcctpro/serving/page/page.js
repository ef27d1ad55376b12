"use strict";
// Status, a file's waveforms with curves and picks, and the stream of picks; nothing is fetched
// from anywhere but the service itself.

const $ = (id) => document.getElementById(id);
const base = document.baseURI.replace(/[^/]*$/, "");
const STREAM_ROWS = 12;
let key = sessionStorage.getItem("key") || "";

function ask(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (key) headers["X-API-Key"] = key;
  return fetch(base + path, { ...options, headers });
}

async function explain(response) {
  if (response.status === 401) $("key-form").hidden = false;
  try {
    const problem = await response.json();
    return problem.hint ? `${problem.detail} (${problem.hint})` : problem.detail;
  } catch {
    return `the service answered ${response.status}`;
  }
}

function fact(list, name, value) {
  const box = document.createElement("div");
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = name;
  text.textContent = value;
  box.append(term, text);
  list.append(box);
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
    if (!response.ok) {
      state.className = "bad";
      state.textContent = await explain(response);
      return;
    }
    const status = await response.json();
    state.className = status.ready ? "good" : "bad";
    state.textContent = status.ready ? "picks" : `does not pick: ${status.reason}`;
    const list = $("facts");
    list.replaceChildren();
    fact(list, "running for", duration(status.uptime_s));
    fact(list, "requests being worked on", `${status.in_progress} of ${status.capacity}`);
    fact(list, "stations waiting", status.waiting);
    fact(list, "stations picked", status.stations);
    fact(list, "picks", status.picks);
    fact(list, "version", status.version);
    for (const model of status.models) fact(list, model.name, `${model.runtime}, ${model.device}`);
    const select = $("model");
    if (!select.options.length) {
      for (const model of status.models) select.add(new Option(model.name, model.name));
      suggest(status.models[0]);
      select.onchange = () => suggest(status.models.find((one) => one.name === select.value));
    }
  } catch {
    state.className = "bad";
    state.textContent = "the service does not answer";
  }
}

function suggest(model) {
  for (const phase of ["P", "S"]) {
    const value = model.thresholds[phase];
    $(phase.toLowerCase()).placeholder = value === undefined ? "" : value;
  }
}

async function pick(body) {
  $("message").textContent = "";
  $("results").replaceChildren();
  const query = new URLSearchParams({ waveforms: "true", private: "true" });
  if ($("model").value) query.set("model", $("model").value);
  for (const phase of ["p", "s"]) if ($(phase).value) query.set(`${phase}_threshold`, $(phase).value);
  const response = await ask(`v1/annotate?${query}`, {
    method: "POST",
    body,
    headers: { "Content-Type": "application/vnd.fdsn.mseed" },
  }).catch(() => null);
  if (!response) $("message").textContent = "the service does not answer";
  else if (!response.ok) $("message").textContent = await explain(response);
  else show(await response.json());
}

function nameOf(item) {
  return [item.network, item.station, item.location, item.channel].join(".");
}

function show(answer) {
  for (const station of answer.stations) {
    const name = nameOf(station);
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const rest = document.createElement("span");
    const picks = answer.picks.filter((one) => nameOf(one) === name);
    caption.textContent = `${name} `;
    rest.textContent =
      station.status === "done" ? `${picks.length} picks` : `${station.status}: ${station.reason}`;
    caption.append(rest);
    figure.append(caption);
    $("results").append(figure);
    if (station.status !== "done") continue;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Waveforms, curves and picks of ${name}`);
    figure.append(canvas, table(picks));
    const prefix = nameOf(station);
    draw(canvas, {
      waves: answer.waveforms.filter((one) => nameOf(one).startsWith(prefix)),
      curves: answer.curves.filter((one) => nameOf(one) === name),
      picks,
    });
  }
  document.body.dataset.drawn = answer.request_id;
}

function table(picks) {
  const made = document.createElement("table");
  for (const one of picks) {
    const row = made.insertRow();
    for (const text of [one.phase, one.time, one.probability.toFixed(3)]) row.insertCell().textContent = text;
    row.cells[0].className = one.phase;
  }
  return made;
}

const seconds = (text) => Date.parse(text) / 1000;

function draw(canvas, data) {
  const spans = [...data.waves, ...data.curves].map((one) => {
    const length = one.low ? one.low.length : one.values[0].length;
    return [seconds(one.start), seconds(one.start) + length / one.sampling_rate];
  });
  const first = Math.min(...spans.map((one) => one[0]));
  const last = Math.max(...spans.map((one) => one[1]));
  let view = [first, last];
  const paint = () => render(canvas, data, view);
  canvas.onwheel = (event) => {
    event.preventDefault();
    const at = view[0] + ((view[1] - view[0]) * event.offsetX) / canvas.clientWidth;
    const factor = event.deltaY > 0 ? 1.25 : 0.8;
    view = [Math.max(first, at + (view[0] - at) * factor), Math.min(last, at + (view[1] - at) * factor)];
    paint();
  };
  canvas.ondblclick = () => { view = [first, last]; paint(); };
  new ResizeObserver(paint).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}

function render(canvas, data, view) {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const x = (time) => ((time - view[0]) / (view[1] - view[0])) * width;
  const channels = [...new Set(data.waves.map((one) => one.channel))];
  const lane = (height - 22) / (channels.length + 1);
  pen.font = "12px system-ui, sans-serif";
  channels.forEach((channel, index) => wave(pen, data.waves.filter((one) => one.channel === channel), x, index * lane, lane, colour, channel));
  const top = channels.length * lane;
  for (const curve of data.curves) curve.values.forEach((values, row) => line(pen, curve, values, x, top, lane, colour(curve.labels[row].toLowerCase())));
  for (const one of data.picks) {
    pen.strokeStyle = colour(one.phase.toLowerCase());
    pen.beginPath();
    pen.moveTo(x(seconds(one.time)), 0);
    pen.lineTo(x(seconds(one.time)), top + lane);
    pen.stroke();
    pen.fillStyle = pen.strokeStyle;
    pen.fillText(one.phase, x(seconds(one.time)) + 3, 12);
  }
  axis(pen, view, x, height, width, colour("soft"));
}

function wave(pen, pieces, x, top, lane, colour, name) {
  let [low, high] = [Infinity, -Infinity];
  for (const piece of pieces) {
    for (const value of piece.low) low = Math.min(low, value);
    for (const value of piece.high) high = Math.max(high, value);
  }
  const middle = (low + high) / 2;
  const half = Math.max((high - low) / 2, 1e-9);
  const y = (value) => top + lane / 2 - ((value - middle) / half) * lane * 0.46;
  pen.strokeStyle = colour("wave");
  pen.lineWidth = 0.8;
  for (const piece of pieces) {
    const start = seconds(piece.start);
    pen.beginPath();
    piece.low.forEach((value, index) => {
      const at = x(start + index / piece.sampling_rate);
      if (at < -2 || at > pen.canvas.clientWidth + 2) return;
      pen.lineTo(at, y(value));
      if (piece.high[index] !== value) pen.lineTo(at, y(piece.high[index]));
    });
    pen.stroke();
  }
  pen.fillStyle = colour("soft");
  pen.fillText(name, 4, top + 14);
  pen.lineWidth = 1;
}

function line(pen, curve, values, x, top, lane, stroke) {
  const start = seconds(curve.start);
  pen.strokeStyle = stroke;
  pen.beginPath();
  let on = false;
  values.forEach((value, index) => {
    if (value === null) { on = false; return; }
    const at = x(start + index / curve.sampling_rate);
    const y = top + lane - 2 - value * (lane - 6);
    if (on) pen.lineTo(at, y);
    else pen.moveTo(at, y);
    on = true;
  });
  pen.stroke();
}

function axis(pen, view, x, height, width, stroke) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];
  const step = steps.find((one) => (view[1] - view[0]) / one < width / 90) || 86400;
  pen.strokeStyle = pen.fillStyle = stroke;
  for (let time = Math.ceil(view[0] / step) * step; time < view[1]; time += step) {
    pen.beginPath();
    pen.moveTo(x(time), height - 20);
    pen.lineTo(x(time), height - 15);
    pen.stroke();
    const text = new Date(time * 1000).toISOString();
    pen.fillText(step < 1 ? text.slice(11, 21) : text.slice(11, 19), x(time) + 2, height - 4);
  }
}

async function together(files) {
  const parts = await Promise.all([...files].map((file) => file.arrayBuffer()));
  return new Blob(parts);
}

async function listen() {
  let last = "";
  for (;;) {
    try {
      const response = await ask("v1/picks/stream", { headers: last ? { "Last-Event-ID": last } : {} });
      if (!response.ok) throw new Error(await explain(response));
      $("stream-state").textContent = "listening";
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
      $("stream-state").textContent = error.message || "not connected";
    }
    await new Promise((resolve) => setTimeout(resolve, 3000));
  }
}

function heard(event) {
  const lines = Object.fromEntries(event.split("\n").map((text) => text.split(/: (.*)/s).slice(0, 2)));
  if (!lines.data) return "";
  const one = JSON.parse(lines.data);
  const body = $("stream").tBodies[0];
  const row = body.insertRow(0);
  for (const text of [nameOf(one), one.phase, one.time, one.probability.toFixed(3)]) row.insertCell().textContent = text;
  row.cells[1].className = one.phase;
  while (body.rows.length > STREAM_ROWS) body.deleteRow(-1);
  return lines.id;
}

$("file").onchange = async () => pick(await together($("file").files));
$("example").onclick = async () => {
  const response = await ask("v1/example");
  if (response.ok) pick(await response.blob());
  else $("message").textContent = await explain(response);
};
const drop = $("drop");
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  pick(await together(event.dataTransfer.files));
};
$("key-form").onsubmit = (event) => {
  event.preventDefault();
  key = $("key").value;
  sessionStorage.setItem("key", key);
  $("key-form").hidden = true;
  refresh();
};
refresh();
setInterval(refresh, 3000);
listen();
