// Filters of methods and suites, and the two methods picked for a comparison. Both are part of the page's state.
"use strict";

(() => {
  const form = document.querySelector("form.filters");
  if (!form) return;
  const controls = [...form.elements].filter((control) => control.name);
  const rows = [...document.querySelectorAll("table.sortable tbody tr")];

  const wanted = () => Object.fromEntries(controls.map((control) => [control.name, control.value.trim()]));

  const rowFits = (row, want) =>
    (!want.q || row.dataset.search.includes(want.q.toLowerCase())) &&
    (!want.category || row.dataset.category === want.category) &&
    (!want.mark || row.dataset.mark === want.mark);

  const suiteFits = (suite, want) =>
    (!want.family || (suite.dataset.family || "").split(" ").includes(want.family)) &&
    (!want.hardware || suite.dataset.hardware === want.hardware);

  const rankingFits = (ranking, want) => !want.budget || !ranking.dataset.budget || ranking.dataset.budget === want.budget;

  const apply = () => {
    const want = wanted();
    const shown = new Set();
    for (const row of rows) row.hidden = !rowFits(row, want);
    for (const suite of document.querySelectorAll("section.suite")) {
      let some = false;
      for (const ranking of suite.querySelectorAll(".ranking")) {
        const left = [...ranking.querySelectorAll("tbody tr:not([hidden])")];
        ranking.hidden = left.length === 0 || !rankingFits(ranking, want);
        some ||= !ranking.hidden;
        if (!ranking.hidden && suiteFits(suite, want)) left.forEach((row) => shown.add(row.dataset.name));
      }
      suite.hidden = !suiteFits(suite, want) || (!some && Object.values(want).some(Boolean));
    }
    const every = new Set(rows.map((row) => row.dataset.name));
    form.querySelector("output").textContent = `${shown.size} of ${every.size} shown`;
  };

  const restore = () => {
    const state = atlas.state.read();
    for (const control of controls) {
      const value = state.get(control.name) || "";
      const known = control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value);
      control.value = known ? value : "";
    }
    apply();
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { apply(); atlas.state.write(wanted()); });
  form.addEventListener("reset", () => setTimeout(() => { apply(); atlas.state.write(wanted()); }));
  restore();
  window.addEventListener("hashchange", restore);

  const bar = document.querySelector("aside.picked");
  if (!bar) return;
  const link = bar.querySelector("a");
  const target = link.getAttribute("href");
  const picked = []; // at most two of one suite; a third takes the first one's place

  const showPicked = () => {
    for (const box of document.querySelectorAll("td.pick input")) box.checked = picked.includes(box);
    bar.hidden = picked.length === 0;
    bar.querySelector("span").textContent = picked.map((box) => box.value).join(" and ");
    const [a, b] = picked;
    if (a) link.href = `${target}#${new URLSearchParams({ suite: a.dataset.suite, a: a.value, ...(b && { b: b.value }) })}`;
  };

  document.addEventListener("change", ({ target: box }) => {
    if (!box.matches("td.pick input")) return;
    const place = picked.indexOf(box);
    if (place >= 0) picked.splice(place, 1);
    else {
      if (picked.length && picked[0].dataset.suite !== box.dataset.suite) picked.length = 0;
      if (picked.length === 2) picked.shift();
      picked.push(box);
    }
    showPicked();
  });
  bar.querySelector("button").addEventListener("click", () => { picked.length = 0; showPicked(); });
})();
