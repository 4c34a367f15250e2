// Sorting. A header is a button; the order is part of the page's state: `sort=<table>:<column>:<way>`.
"use strict";

(() => {
  const label = (header) => header.textContent.trim();

  // [has no value, value]: what has none stands at the end whichever way the table is sorted.
  const key = (row, place) => {
    const cell = row.cells[place];
    if (cell.dataset.sort !== undefined) return [false, Number(cell.dataset.sort)];
    const text = cell.textContent.trim().toLowerCase();
    return cell.matches(".name, .text") ? [text === "", text] : [true, 0];
  };

  const sort = (table, header, way) => {
    const place = [...header.parentElement.cells].indexOf(header);
    const sign = way === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: key(row, place) }));
    rows.sort(({ key: [noA, a] }, { key: [noB, b] }) => {
      if (noA || noB) return noA - noB;
      return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    });
    body.append(...rows.map(({ row }) => row));
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", way);
  };

  const opposite = { ascending: "descending", descending: "ascending" };

  const makeSortable = (table) => {
    for (const header of table.tHead.rows[0].cells) {
      if (!header.dataset.best) continue;
      const button = atlas.element("button", { type: "button" }, ...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const before = header.getAttribute("aria-sort");
        const way = before ? opposite[before] : header.dataset.best;
        sort(table, header, way);
        atlas.state.write({ sort: `${table.id}:${label(header)}:${way}` });
      });
    }
  };

  // As the state asks for; a state that names no column of the page changes nothing.
  const restore = () => {
    const [id, title, way] = (atlas.state.read().get("sort") || "").split(":");
    const table = id && document.getElementById(id);
    if (!table || !table.tHead || !opposite[way]) return;
    const header = [...table.tHead.rows[0].cells].find((cell) => cell.dataset.best && label(cell) === title);
    if (header) sort(table, header, way);
  };

  document.querySelectorAll("table.sortable").forEach(makeSortable);
  restore();
  window.addEventListener("hashchange", restore);
})();
