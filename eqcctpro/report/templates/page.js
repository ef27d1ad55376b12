"use strict";
// Plots of a page: drawn when they come into view, coloured as the page is, filtered together.
const figures = new Map();
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function readJson(id) {
  const element = document.getElementById(id);
  return element === null ? null : JSON.parse(element.textContent);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function themed(layout) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line") };
  const narrow = window.innerWidth < 640;
  const result = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), size: 12, family: "system-ui, sans-serif" },
    hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--accent") },
    margin: { l: narrow ? 46 : 64, r: 14, t: 30, b: 46, ...(layout.margin || {}) },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal", bgcolor: "rgba(0,0,0,0)", ...(layout.legend || {}) },
  };
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout)])) {
    if (/^[xy]axis\d*$/.test(name)) result[name] = { automargin: true, ...axis, ...(layout[name] || {}) };
    if (/^scene\d*$/.test(name)) {
      const scene = layout[name];
      result[name] = { ...scene };
      const eye = scene.camera && scene.camera.eye;
      if (narrow && eye) {
        result[name].camera = { ...scene.camera, eye: { x: eye.x * 1.6, y: eye.y * 1.6, z: eye.z * 1.6 } };
      }
      for (const one of ["xaxis", "yaxis", "zaxis"]) {
        result[name][one] = { ...axis, backgroundcolor: "rgba(0,0,0,0)", ...(scene[one] || {}) };
      }
    }
  }
  return result;
}

// A layout or trace may name colours of the page, such as "--p".
function coloured(value) {
  if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
  if (Array.isArray(value)) {
    return value.length > 0 && typeof value[0] === "object" && value[0] !== null ? value.map(coloured) : value;
  }
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
  }
  return value;
}

const perPoint = [["x"], ["y"], ["z"], ["text"], ["customdata"], ["marker", "color"], ["marker", "size"],
  ["marker", "symbol"], ["error_y", "array"], ["error_y", "arrayminus"]];

function kept(trace, chosen) {
  const rows = trace.meta && trace.meta.rows;
  if (!rows || chosen === null) return trace;
  const copy = { ...trace };
  for (const [outer, inner] of perPoint) {
    const holder = inner === undefined ? copy : copy[outer];
    const name = inner === undefined ? outer : inner;
    if (!holder || !Array.isArray(holder[name])) continue;
    const values = holder[name].filter((_, index) => chosen.has(rows[index]));
    if (inner === undefined) copy[outer] = values;
    else copy[outer] = { ...holder, [name]: values };
  }
  return copy;
}

function chosenRows() {
  const selects = [...document.querySelectorAll("select[data-filter]")].filter((one) => one.value !== "");
  if (selects.length === 0) return null;
  const rows = readJson("rows");
  const chosen = new Set();
  rows.forEach((row, index) => {
    if (selects.every((one) => String(row[one.dataset.filter]) === one.value)) chosen.add(index);
  });
  return chosen;
}

function draw(element) {
  const figure = figures.get(element);
  const chosen = chosenRows();
  const traces = figure.data.map((trace) => coloured(kept(trace, chosen)));
  const layout = coloured(themed(figure.layout));
  const options = { responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  return Plotly.react(element, traces, layout, options).then(() => {
    element.dataset.drawn = "yes";
  });
}

function drawAll() {
  for (const element of figures.keys()) if (element.dataset.drawn) draw(element);
}

function showCount() {
  const place = document.getElementById("chosen");
  if (place === null) return;
  const chosen = chosenRows();
  const all = readJson("rows").length;
  place.textContent = chosen === null ? `${all} trials` : `${chosen.size} of ${all} trials`;
}

document.addEventListener("DOMContentLoaded", () => {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const element of document.querySelectorAll(".plot")) {
    figures.set(element, readJson(`data-${element.id}`));
    watcher.observe(element);
  }
  for (const select of document.querySelectorAll("select[data-filter]")) {
    select.addEventListener("change", () => { showCount(); drawAll(); });
  }
  showCount();
  dark.addEventListener("change", drawAll);
  // Paper shows what was not scrolled to as well.
  window.addEventListener("beforeprint", () => { for (const element of figures.keys()) draw(element); });
});
