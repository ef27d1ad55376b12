// The table of stations: searched, filtered, sorted, a page at a time.
document.addEventListener("DOMContentLoaded", () => {
  const all = readJson("rows");
  const body = document.querySelector("#table tbody");
  const search = document.getElementById("search");
  const only = document.getElementById("only");
  const columns = ["station", "status", "tasks", "P", "S", "rate", "data", "gaps", "gap_s", "reason"];
  const perPage = 50;
  const state = { key: "station", up: true, page: 0 };

  const tests = {
    "": () => true,
    silent: (row) => row.P + row.S === 0,
    gaps: (row) => row.gaps > 0,
  };

  function chosen() {
    const text = search.value.trim().toLowerCase();
    const test = tests[only.value] || ((row) => row.status === only.value);
    const rows = all.filter((row) => test(row) && row.station.toLowerCase().includes(text));
    const sign = state.up ? 1 : -1;
    return rows.sort((a, b) => {
      const [x, y] = [a[state.key], b[state.key]];
      if (x === y) return a.station < b.station ? -1 : 1;
      if (x === null) return 1;
      if (y === null) return -1;
      return x < y ? -sign : sign;
    });
  }

  function show() {
    const rows = chosen();
    const pages = Math.max(Math.ceil(rows.length / perPage), 1);
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const shown = rows.slice(state.page * perPage, (state.page + 1) * perPage);
    body.replaceChildren(...shown.map((row) => {
      const line = document.createElement("tr");
      for (const name of columns) {
        const cell = document.createElement("td");
        const value = row[name];
        cell.textContent = value === null ? "–" : typeof value === "number" ? value.toLocaleString("en") : value;
        if (typeof value === "number" || value === null) cell.className = "number";
        if (name === "status") cell.className = value;
        line.append(cell);
      }
      return line;
    }));
    const first = rows.length === 0 ? 0 : state.page * perPage + 1;
    document.getElementById("where").textContent =
      `${first} to ${state.page * perPage + shown.length} of ${rows.length} stations`;
    document.getElementById("before").disabled = state.page === 0;
    document.getElementById("after").disabled = state.page >= pages - 1;
    for (const button of document.querySelectorAll("#table th button")) {
      const sorted = button.dataset.key === state.key;
      if (sorted) button.parentElement.setAttribute("aria-sort", state.up ? "ascending" : "descending");
      else button.parentElement.removeAttribute("aria-sort");
    }
  }

  for (const button of document.querySelectorAll("#table th button")) {
    button.addEventListener("click", () => {
      const text = ["station", "status"].includes(button.dataset.key);
      state.up = state.key === button.dataset.key ? !state.up : text;
      state.key = button.dataset.key;
      state.page = 0;
      show();
    });
  }
  search.addEventListener("input", () => { state.page = 0; show(); });
  only.addEventListener("change", () => { state.page = 0; show(); });
  document.getElementById("before").addEventListener("click", () => { state.page -= 1; show(); });
  document.getElementById("after").addEventListener("click", () => { state.page += 1; show(); });
  show();
});
