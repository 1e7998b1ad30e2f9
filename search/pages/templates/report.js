// What the page does besides being read: draws plots in the page's colours, sorts and filters tables, changes between light and dark.
"use strict";
(() => {
  const root = document.documentElement;
  const all = (query, within = document) => [...within.querySelectorAll(query)];
  const PRINTED_WIDTH = 690; // pixels of A4 between its margins
  const PRINTED_HEIGHT = 0.8; // of that on the screen

  // ---- colours: "--name" stands for a colour of the style sheet, as it is now

  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;

  function colour(name) {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  function coloured(value, key = "") {
    if (Array.isArray(value)) return value.map((part) => coloured(part, key));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, coloured(part, name)]));
    }
    return key === "color" && typeof value === "string" && value.startsWith("--") ? colour(value) : value;
  }

  // ---- plots

  const plots = new Map();
  const touched = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page

  function axis(given) {
    const ruled = { gridcolor: colour("--rule"), zerolinecolor: colour("--muted"), linecolor: colour("--muted"), zeroline: false };
    const title = { ...given.title, standoff: 8 };
    return { automargin: true, ticks: "outside", tickcolor: colour("--muted"), ticklen: 4, ...ruled, ...given, title };
  }

  function layout(plot) {
    const { xaxis, yaxis, ...rest } = plot.figure.layout;
    const range = plot.figure.ranges[plot.group];
    return {
      ...rest,
      xaxis: axis(range ? { ...xaxis, range } : xaxis),
      yaxis: axis(yaxis),
      font: { family: "system-ui, sans-serif", size: 12, color: colour("--ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 52, r: 14, t: 14, b: 44 },
      showlegend: false,
      hovermode: "closest",
      dragmode: touched ? false : "zoom",
      hoverlabel: { align: "left", bgcolor: colour("--paper"), bordercolor: colour("--muted"), font: { color: colour("--ink") } },
      ...(root.dataset.printing === undefined ? { autosize: true } : { width: PRINTED_WIDTH, height: PRINTED_HEIGHT * parseFloat(plot.host.style.height) }),
    };
  }

  function draw(plot) {
    const data = plot.figure.data.map((trace, number) => ({ ...coloured(trace), visible: !plot.hidden.has(number) }));
    return Plotly.react(plot.host, data, layout(plot), { displayModeBar: false, responsive: true });
  }

  function drawAll() {
    plots.forEach(draw);
  }

  function begin(host) {
    const figure = JSON.parse(document.getElementById(host.dataset.figure).textContent);
    const readout = host.parentElement.querySelector(".readout");
    const plot = { host, figure, readout, hidden: new Set(), group: "", at: null };
    plots.set(host.id.replace("canvas-", ""), plot);
    draw(plot);
    host.on("plotly_hover", (event) => tell(plot, event.points[0].customdata));
    host.addEventListener("keydown", (event) => walk(plot, event));
    host.addEventListener("blur", () => Plotly.Fx.unhover(host));
  }

  function tell(plot, text) {
    plot.readout.textContent = text ?? "";
  }

  // The points of each trace that can be told of, as plotly numbers them, in the order of x.
  function points(plot, number) {
    const trace = plot.figure.data[number];
    if (trace.hoverinfo === "skip" || plot.hidden.has(number)) return [];
    if (trace.z) return trace.z.flatMap((row, y) => row.map((_, x) => [y, x]));
    return trace.x.map((_, index) => index).sort((a, b) => trace.x[a] - trace.x[b]);
  }

  function walk(plot, event) {
    const traces = plot.figure.data.map((_, number) => number).filter((number) => points(plot, number).length);
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (!(event.key in moves) || !traces.length) return;
    event.preventDefault();
    const [down, right] = moves[event.key];
    const [before, at] = plot.at ?? [0, 0];
    const rows = plot.figure.data[traces[before]].z; // a map has its rows for series
    const trace = plot.at && !rows ? (before + down + traces.length) % traces.length : before;
    const among = points(plot, traces[trace]);
    const move = rows ? right + down * rows[0].length : right;
    const place = !plot.at ? 0 : down && !rows ? Math.min(at, among.length - 1) : (at + move + among.length) % among.length;
    plot.at = [trace, place];
    const pointNumber = among[place];
    const told = plot.figure.data[traces[trace]].customdata;
    tell(plot, Array.isArray(pointNumber) ? told[pointNumber[0]][pointNumber[1]] : told[pointNumber]);
    Plotly.Fx.hover(plot.host, [{ curveNumber: traces[trace], pointNumber }]);
  }

  all(".canvas").forEach(begin);

  all(".legend button").forEach((button) =>
    button.addEventListener("click", () => {
      const plot = plots.get(button.dataset.plot);
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      button.dataset.traces.split(",").forEach((number) => (shown ? plot.hidden.delete(+number) : plot.hidden.add(+number)));
      plot.at = null;
      draw(plot);
    }),
  );
  all(".reset").forEach((button) => button.addEventListener("click", () => draw(plots.get(button.dataset.plot))));

  // ---- tables

  function compare(column, sign) {
    const value = (row) => row.cells[column].dataset.value;
    const text = (row) => row.cells[column].textContent.trim();
    const absent = (row) => value(row) === undefined && text(row) === "-";
    return (a, b) => {
      if (absent(a) || absent(b)) return absent(a) - absent(b); // what is not there stays last
      if (value(a) !== undefined && value(b) !== undefined) return sign * (value(a) - value(b)) || 0;
      return sign * text(a).localeCompare(text(b), "en", { numeric: true });
    };
  }

  all("thead button").forEach((button) =>
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      all("th", head.parentElement).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const body = head.closest("table").tBodies[0];
      body.append(...[...body.rows].sort(compare(head.cellIndex, sign)));
    }),
  );

  all("[data-filter]").forEach((choice) =>
    choice.addEventListener("change", () => {
      const key = choice.dataset.filter;
      all("tbody tr", document.getElementById(`table-${key}`)).forEach((row) => {
        row.hidden = choice.value !== "" && row.dataset.group !== choice.value;
      });
      plots.forEach((plot) => {
        if (plot.host.dataset.follows === key) {
          plot.group = choice.value in plot.figure.ranges ? choice.value : "";
          draw(plot);
        }
      });
    }),
  );

  // ---- light and dark, and print, which is light

  const theme = document.getElementById("theme");
  const KEY = "lps-search-colours";

  function setTheme(name) {
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    theme.value = name;
    drawAll();
  }

  try {
    const kept = localStorage.getItem(KEY);
    if (kept === "light" || kept === "dark") setTheme(kept);
  } catch {
    // A browser may refuse storage to a page from a file: then the choice lasts as long as the page.
  }
  theme.addEventListener("change", () => {
    setTheme(theme.value);
    try {
      localStorage.setItem(KEY, theme.value);
    } catch {
      // As above.
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => {
    root.dataset.printing = "";
    drawAll();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.printing;
    drawAll();
  });
})();
