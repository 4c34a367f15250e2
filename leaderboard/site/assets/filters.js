// Filters of methods and suites. What they are set to is the page's state.
"use strict";

(() => {
  const form = document.querySelector("form.filters");
  if (!form) return;
  const controls = [...form.elements].filter((control) => control.name);
  const rows = [...document.querySelectorAll("table.sortable tbody tr")].map((row) => {
    const method = row.querySelector("th.name a");
    return {
      row, name: row.dataset.name, mark: row.dataset.mark,
      words: `${row.dataset.name} ${method.title}`.toLowerCase(),
      category: row.querySelector("td.category").textContent.split("/")[0],
    };
  });

  const wanted = () => Object.fromEntries(controls.map((control) => [control.name, control.value.trim()]));

  const rowFits = ({ words, category, mark }, want) =>
    (!want.q || words.includes(want.q.toLowerCase())) &&
    (!want.category || category === want.category) &&
    (!want.mark || mark === want.mark);

  const suiteFits = (suite, want) =>
    (!want.family || (suite.dataset.family || "").split(" ").includes(want.family)) &&
    (!want.hardware || suite.dataset.hardware === want.hardware);

  const rankingFits = (ranking, want) => !want.budget || !ranking.dataset.budget || ranking.dataset.budget === want.budget;

  const apply = () => {
    const want = wanted();
    const shown = new Set();
    for (const one of rows) one.row.hidden = !rowFits(one, want);
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
    const every = new Set(rows.map(({ name }) => name));
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
})();
