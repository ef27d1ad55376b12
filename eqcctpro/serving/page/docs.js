"use strict";
// The interface's description as a page: paths, parameters, bodies, answers, examples.

function element(parent, name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
}

function rows(parent, heading, pairs) {
  if (!pairs.length) return;
  element(parent, "h3", heading);
  const table = element(parent, "table");
  for (const pair of pairs) {
    const row = table.insertRow();
    for (const text of pair) row.insertCell().textContent = text;
  }
}

function example(parent, path, content) {
  const json = content && content["application/json"];
  if (!json || !json.example) return;
  element(parent, "h3", "Example");
  const body = JSON.stringify(json.example);
  element(parent, "pre", `curl -X POST ${new URL(path.slice(1), document.baseURI)} \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`);
}

async function load() {
  const description = await (await fetch("openapi.json")).json();
  const main = document.getElementById("paths");
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = element(main, "section");
      element(section, "h2", `${method.toUpperCase()} ${path}`);
      if (operation.description) element(section, "p", operation.description);
      rows(section, "Parameters", (operation.parameters || []).map((one) => [one.name, one.in, one.schema.type || ""]));
      const content = operation.requestBody && operation.requestBody.content;
      if (content) {
        if (operation.requestBody.description) element(section, "p", operation.requestBody.description);
        rows(section, "Bodies", Object.keys(content).map((one) => [one]));
      }
      rows(section, "Answers", Object.entries(operation.responses).map(([status, one]) => [status, one.description, Object.keys(one.content || {}).join(", ")]));
      example(section, path, content);
    }
  }
}
load();
