// A box in front of each method; two picked ones of a suite make a link to their comparison.
"use strict";

(() => {
  const bar = document.querySelector("aside.picked");
  if (!bar) return;
  const { element } = atlas;
  const link = bar.querySelector("a");
  const target = link.getAttribute("href");
  const picked = []; // at most two of one suite; a third takes the first one's place
  const name = (box) => box.closest("tr").dataset.name;
  const suite = (box) => box.closest("table").dataset.suite;

  for (const table of document.querySelectorAll("table[data-suite]")) {
    table.tHead.rows[0].prepend(element("th", { scope: "col", className: "pick" }, element("span", { className: "unseen" }, "compare")));
    for (const row of table.tBodies[0].rows) {
      const box = element("input", { type: "checkbox", "aria-label": `compare ${row.dataset.name}` });
      row.prepend(element("td", { className: "pick" }, box));
    }
  }

  const show = () => {
    for (const box of document.querySelectorAll("td.pick input")) box.checked = picked.includes(box);
    bar.hidden = picked.length === 0;
    bar.querySelector("span").textContent = picked.map(name).join(" and ");
    const [a, b] = picked;
    if (a) link.href = `${target}#${new URLSearchParams({ suite: suite(a), a: name(a), ...(b && { b: name(b) }) })}`;
  };

  document.addEventListener("change", ({ target: box }) => {
    if (!box.matches("td.pick input")) return;
    const place = picked.indexOf(box);
    if (place >= 0) picked.splice(place, 1);
    else {
      if (picked.length && suite(picked[0]) !== suite(box)) picked.length = 0;
      if (picked.length === 2) picked.shift();
      picked.push(box);
    }
    show();
  });
  bar.querySelector("button").addEventListener("click", () => { picked.length = 0; show(); });
})();
