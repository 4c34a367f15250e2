// The gain of every measured kernel, read from the table of the page.
"use strict";

atlas.figures.kernels = (_, __, style) => {
  const table = document.getElementById("kernels");
  const last = table.tHead.rows[0].cells.length - 1;
  const rows = [...table.tBodies[0].rows].filter((row) => row.cells[last].dataset.sort !== undefined);
  const word = (row, place) => row.cells[place].textContent.trim();
  const kernels = [...new Set(rows.map((row) => word(row, 0)))].sort();
  const modes = [...new Set(rows.map((row) => word(row, 3)))];
  const traces = modes.map((mode, place) => {
    const mine = rows.filter((row) => word(row, 3) === mode);
    return {
      name: atlas.plain(mode), mode: "markers", hoverinfo: "text",
      x: mine.map((row) => Number(row.cells[last].dataset.sort)),
      y: mine.map((row) => kernels.indexOf(word(row, 0)) + 0.18 * (place - (modes.length - 1) / 2)),
      hovertext: mine.map((row) => atlas.plain([1, 2, 4, 5, 6].map((at) => word(row, at)).join(", ")) + `<br>gain ${word(row, last)}`),
      marker: { size: 9, color: style.series[place % 8], symbol: style.symbols[place % 8] },
    };
  });
  const even = { type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: style.quiet, width: 1, dash: "dash" } };
  const yaxis = { tickvals: kernels.map((_, row) => row), ticktext: kernels.map((name) => atlas.short(name)), range: [kernels.length - 0.4, -0.6] };
  return { traces, own: { shapes: [even], height: 120 + 46 * kernels.length, xaxis: { type: "log", title: { text: "gain (right of 1 the kernel is faster)" } }, yaxis } };
};
