// Two methods of one suite side by side. The choice is the page's state: `suite=...&a=...&b=...`.
"use strict";

(() => {
  const form = document.getElementById("choice");
  const { suite: suites, a: first, b: second } = form.elements;
  const place = document.getElementById("comparison");
  const element = atlas.element;
  if (!suites.options.length) return;

  const table = (caption, head, rows) => element(
    "div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    element("table", { className: "compare" },
      element("caption", {}, element("span", {}, caption)),
      element("thead", {}, element("tr", {}, ...head.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, ...rows.map(([title, ...cells]) => element("tr", {},
        element("th", { scope: "row" }, title),
        ...cells.map((cell) => element("td", { className: "text" }, cell)))))));

  const signed = (value, digits) => {
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : `${value > 0 ? "+" : "\u2212"}${text}`;
  };

  // The paired test of the two, where a ranking has both.
  const verdict = (suite, a, b) => {
    for (const { pairs, standings, unit } of suite.rankings) {
      const [one, other] = [a, b].map((name) => standings.findIndex((found) => found.name === name));
      const pair = one >= 0 && other >= 0 && one !== other && pairs[Math.min(one, other)][Math.abs(one - other) - 1];
      if (!pair) continue;
      const sign = one < other ? 1 : -1;
      const [mean, half, p] = pair;
      const amount = `${signed(sign * mean, 2)}${half === null ? "" : ` ± ${half.toFixed(2)}`}${unit === "%" ? " points" : ""}`;
      if (p === null) return `Mean of ${b} minus ${a}: ${amount}; too little is recorded for a test.`;
      const told = p < 0.05 ? "The difference is significant" : "They cannot be told apart";
      return `Mean of ${b} minus ${a}, paired over items: ${amount}. ${told} (p = ${p.toPrecision(2)} after Holm).`;
    }
    return a === b ? "Choose two different methods." : "These two are in no common ranking: compute class or budget differ.";
  };

  const standing = (suite, name) => {
    for (const ranking of suite.rankings) {
      const found = ranking.standings.find((one) => one.name === name);
      if (found) return { rank: found.rank, mean: found.mean, "mean rank": found.place === null ? "none" : found.place.toFixed(2), "win rate": found.wins, ranking: ranking.title };
    }
    return { rank: "none" };
  };

  const union = (a, b) => [...new Set([...Object.keys(a), ...Object.keys(b)])];
  const sideBySide = (a, b) => union(a, b).map((name) => [name, a[name] ?? "", b[name] ?? ""]);

  const scores = (suite, a, b) => suite.tasks.map((task, number) => {
    const [one, other] = [a.entries[number], b.entries[number]];
    const known = one.mean !== null && other.mean !== null;
    const digits = task.unit === "%" ? 1 : 3;
    return [task.id, one.text, other.text, known ? signed(other.mean - one.mean, digits) : ""];
  });

  // Of the first task that both have, since costs differ by backbone.
  const [costs, settings] = [
    (suite, at, one, other) => [["task", suite.tasks[at].id, suite.tasks[at].id],
      ...suite.facts.map((name, fact) => [name, one.facts[fact], other.facts[fact]])],
    (suite, at, one, other) => sideBySide(one.settings, other.settings),
  ].map((rows) => (suite, a, b) => {
    const kind = (member, at) => member.kinds[member.entries[at].kind];
    const at = suite.tasks.findIndex((_, number) => kind(a, number).facts[0] && kind(b, number).facts[0]);
    return at < 0 ? [] : rows(suite, at, kind(a, at), kind(b, at));
  });

  // How far the adapted backbone has moved on data that no task contains.
  const drift = (suite, a, b) => suite.tasks.map((task, at) => [task.id, a.entries[at].drift, b.entries[at].drift]);

  const links = (members) => element("p", {}, "Pages: ", ...members.flatMap((member, number) =>
    [number ? ", " : "", element("a", { href: document.body.dataset.root + member.page }, member.title)]));

  const show = () => {
    const suite = atlas.suites[suites.value];
    const [a, b] = [first.value, second.value].map((name) => suite.contenders.find((member) => member.name === name));
    if (!a || !b) return;
    const head = ["", a.name, b.name];
    const lower = suite.tasks.filter((task) => !task.higher).map((task) => task.id);
    place.replaceChildren(
      element("p", { className: "lead verdict" }, verdict(suite, a.name, b.name)),
      table("Place", head, sideBySide(standing(suite, a.name), standing(suite, b.name))),
      table("Scores by task", [...head, "difference"], scores(suite, a, b)),
      element("p", { className: "notes" }, "Differences of single tasks have no interval of their own; the paired test above is over all tasks.",
        lower.length ? ` Lower is better: ${lower.join(", ")}.` : ""),
      table("What it costs", head, costs(suite, a, b)),
      table("Settings", head, settings(suite, a, b)),
      table("What it is", head, sideBySide(a.facts, b.facts)),
      table("Drift by task", head, drift(suite, a, b)),
      links([a, b]));
    form.querySelector("output").textContent = `${a.name} and ${b.name}`;
  };

  const fill = (select, names, wish, other) => {
    select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    select.value = names.includes(wish) ? wish : names.find((name) => name !== other) ?? names[0];
  };

  // Names of the suite, best first; what the state or the form asked for stays where the suite has it.
  const open = async ({ suite, a, b }) => {
    if ([...suites.options].some((option) => option.value === suite)) suites.value = suite;
    try {
      await atlas.load(suites.selectedOptions[0].dataset.script);
    } catch (error) {
      place.replaceChildren(element("p", {}, error.message));
      return;
    }
    const found = atlas.suites[suites.value];
    const ranked = found.rankings.flatMap((ranking) => ranking.standings.map((one) => one.name));
    const names = [...new Set([...ranked, ...found.contenders.map((member) => member.name)])];
    fill(first, names, a, b);
    fill(second, names, b, first.value);
    show();
  };

  const chosen = () => ({ suite: suites.value, a: first.value, b: second.value });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", async () => { await open(chosen()); atlas.state.write(chosen()); });
  const restore = () => open(Object.fromEntries(atlas.state.read()));
  window.addEventListener("hashchange", restore);
  restore();
})();
