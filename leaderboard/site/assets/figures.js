// The figures of a suite's page, see plots.js.
"use strict";

(() => {
  const { plain, short } = atlas;
  const own = ({ rankings }) => rankings.filter((ranking) => ranking.budget === null);
  const member = (suite, name) => suite.contenders.find((one) => one.name === name);
  const rowsHeight = (rows) => 90 + 21 * Math.max(rows, 4);
  const byRow = (names, style) => ({
    tickvals: names.map((_, row) => row), ticktext: names.map((name) => short(name, style.narrow ? 14 : 26)),
    range: [names.length - 0.4, -0.6], gridcolor: "rgba(0,0,0,0)",
  });

  // Methods that train nothing have no place on a logarithm: they stand a decade below the smallest, labelled 0.
  const logAxis = (values, title) => {
    const positive = values.filter((value) => value > 0);
    if (!positive.length) return { axis: { title: { text: title } }, at: (value) => value };
    const [low, high] = [Math.floor(Math.log10(Math.min(...positive))), Math.ceil(Math.log10(Math.max(...positive)))];
    if (positive.length === values.length) return { axis: { type: "log", dtick: high - low > 2 ? 1 : "D2", title: { text: title } }, at: (value) => value };
    const decades = Array.from({ length: high - low + 1 }, (_, step) => 10 ** (low + step));
    const zero = 10 ** (low - 1);
    const written = new Intl.NumberFormat("en", { notation: "compact" });
    const ticks = { tickvals: [zero, ...decades], ticktext: ["0", ...decades.map((value) => written.format(value))] };
    return { axis: { type: "log", title: { text: title }, ...ticks }, at: (value) => (value > 0 ? value : zero) };
  };

  atlas.figures.pareto = (suite, { cost }, style) => {
    const found = own(suite).flatMap(({ compute, tradeoffs, higher }) => tradeoffs.filter((one) => !cost || one.cost === cost).slice(0, 1).flatMap(
      ({ points, title }) => points.map(([name, price, quality, half, front]) => (
        { ...member(suite, name), price, quality, half, front, title, higher, apart: compute !== "equal-steps" }))));
    const { axis, at } = logAxis(found.map((point) => point.price), found[0]?.title ?? "");
    const front = found.filter((point) => point.front && !point.apart).sort((a, b) => a.price - b.price);
    const line = { x: front.map((point) => at(point.price)), y: front.map((point) => point.quality), mode: "lines", name: "Pareto front",
      line: { shape: "hv", dash: "dash", width: 1.2, color: style.quiet }, hoverinfo: "skip" };
    const groups = [...new Map(found.map((point) => [point.group, point.look]))].sort((a, b) => a[1] - b[1]);
    const traces = groups.map(([group, place]) => {
      const points = found.filter((point) => point.group === group);
      return {
        name: plain(group), mode: "markers+text", x: points.map((point) => at(point.price)), y: points.map((point) => point.quality),
        text: points.map((point) => (point.front || found.length <= 12) && !style.narrow ? short(point.name) : ""), textposition: "top right",
        textfont: { size: 11 }, cliponaxis: false,
        hovertext: points.map((point) => `${plain(point.name)}<br>${point.quality.toFixed(2)}${point.half === null ? "" : ` ± ${point.half.toFixed(2)}`}<br>${point.price.toLocaleString("en")}${point.apart ? "<br>ranked apart" : ""}`),
        hoverinfo: "text",
        error_y: { array: points.map((point) => point.half ?? 0), thickness: 1, width: 2 },
        marker: { size: 9, color: style.series[place], symbol: points.map((point) => style.symbols[place] + (point.apart ? "-open" : "")) },
      };
    });
    const unit = suite.rankings[0]?.unit;
    const mean = suite.rankings[0]?.standings.some((one) => one.mean !== "incomplete");
    const title = mean ? `mean score${unit ? `, ${unit}` : ""}` : "mean over tasks, in standard deviations of items";
    return { traces: [line, ...traces], own: { xaxis: axis, yaxis: { title: { text: title }, autorange: found[0]?.higher === false ? "reversed" : true } } };
  };

  atlas.figures.ranks = (suite, { compute }, style) => {
    const ranking = own(suite).find((one) => !compute || one.compute === compute);
    const places = ranking.order.map((name) => ranking.standings.find((one) => one.name === name).place);
    const members = ranking.order.map((name) => member(suite, name));
    const right = Math.max(...places, 1);
    const bars = ranking.bars.map(([first, last], number) => {
      const x = 0.84 + (0.16 * number) / Math.max(ranking.bars.length, 8);
      return { type: "line", xref: "paper", x0: x, x1: x, y0: first - 0.25, y1: last + 0.25, line: { color: style.ink, width: 3 } };
    });
    const trace = {
      x: places, y: places.map((_, row) => row), mode: "markers+text", text: places.map((place) => place.toFixed(2)), textposition: "middle right",
      textfont: { color: style.quiet, size: 11 }, hovertext: ranking.order.map(plain), hoverinfo: "text", cliponaxis: false,
      marker: { size: 9, color: members.map((one) => style.series[one.look]), symbol: members.map((one) => style.symbols[one.look]) },
    };
    const xaxis = { title: { text: `mean rank over ${ranking.tasks} task${ranking.tasks === 1 ? "" : "s"} (1 is best)` }, range: [1 - right / 40, right * 1.06], domain: [0, 0.8] };
    return { traces: [trace], own: { shapes: bars, showlegend: false, height: rowsHeight(places.length), xaxis, yaxis: byRow(ranking.order, style) } };
  };

  atlas.figures.seeds = (suite, { task }, style) => {
    const number = Math.max(suite.tasks.findIndex((one) => one.id === task), 0);
    const { higher, metric, unit } = suite.tasks[number];
    const found = suite.contenders.map((one) => ({ ...one, entry: one.entries[number] })).filter(({ entry }) => entry.mean !== null);
    found.sort((a, b) => (higher ? b.entry.mean - a.entry.mean : a.entry.mean - b.entry.mean));
    const dots = found.flatMap(({ entry }, row) => entry.seeds.map((value) => [value, row]));
    const seeds = { x: dots.map(([value]) => value), y: dots.map(([, row]) => row), mode: "markers", name: "a seed", hoverinfo: "x",
      marker: { size: 7, symbol: "circle-open", color: style.quiet } };
    const means = { x: found.map(({ entry }) => entry.mean), y: found.map((_, row) => row), mode: "markers", name: "mean, 95% interval",
      hovertext: found.map((one) => `${plain(one.name)}<br>${plain(one.entry.text)}`), hoverinfo: "text",
      error_x: { array: found.map(({ entry }) => entry.half ?? 0), thickness: 1.5, width: 3 },
      marker: { size: 7, symbol: "line-ns-open", color: style.accent, line: { width: 2 } } };
    return { traces: [seeds, means], own: { height: rowsHeight(found.length), legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      xaxis: { title: { text: `${plain(metric)}${unit ? `, ${unit}` : ""}${higher ? "" : " (lower is better)"}` } },
      yaxis: byRow(found.map((one) => one.name), style) } };
  };

  const NAMED = 6; // curves in colour; more cannot be told apart

  atlas.figures.learning = (suite, { task }, style) => {
    const number = Math.max(suite.tasks.findIndex((one) => one.id === task), 0);
    const sign = suite.tasks[number].higher ? -1 : 1;
    const found = suite.contenders.map((one) => ({ ...one, entry: one.entries[number] })).filter(({ entry }) => entry.loss.length);
    found.sort((a, b) => sign * ((a.entry.mean ?? sign * Infinity) - (b.entry.mean ?? sign * Infinity)) || 0);
    const traces = found.map(({ name, entry }, place) => ({
      x: entry.loss.map((_, at) => ((at + 0.5) * entry.steps) / entry.loss.length), y: entry.loss, mode: "lines", name: short(name),
      showlegend: place < NAMED, hovertemplate: "%{y:.3f} at step %{x:.0f}", line: place < NAMED
        ? { color: style.series[place], width: 2, dash: ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"][place] } : { color: style.faint, width: 1 },
    }));
    return { traces: traces.reverse(), own: { xaxis: { title: { text: "step" } }, yaxis: { title: { text: "training loss" } }, legend: { traceorder: "reversed", ...(style.narrow && { orientation: "h", y: -0.22 }) } } };
  };

  atlas.figures.tuning = (suite, { method }, style) => {
    const found = suite.tuning.filter((one) => !method || one.name === method);
    const lowest = Math.min(...found.flatMap(({ trials }) => trials.map(([, score]) => score ?? Infinity)));
    const traces = found.flatMap(({ task, trials }, place) => {
      const at = ([value], number) => value ?? number + 1;
      const base = { x: trials.map(at), hovertext: trials.map(([, score, , text, status]) => `${plain(text)}<br>${score === null ? plain(status) : score.toFixed(2)}`), hoverinfo: "text" };
      return [{ ...base, y: trials.map(([, score]) => score ?? lowest), mode: "lines+markers", name: plain(task),
        line: { color: style.series[place % 8], width: 1.2 },
        marker: { size: 8, color: style.series[place % 8], symbol: trials.map(([, score]) => (score === null ? "x" : style.symbols[place % 8])) } },
      { ...base, y: trials.map(([, score, chosen]) => (chosen ? score : null)), mode: "markers", showlegend: false, hoverinfo: "skip",
        marker: { size: 16, symbol: "circle-open", color: style.ink, line: { width: 1.6 } } }];
    });
    const axis = found[0]?.axis;
    const lower = found.every((one) => suite.tasks.find(({ id }) => id === one.task)?.higher === false);
    const positive = found.every(({ trials }) => trials.every(([value]) => value !== null && value > 0));
    const tried = [...new Set(found.flatMap(({ trials }) => trials.map(([value]) => value)))];
    const ticks = axis && tried.length < 10 ? { tickvals: tried, ticktext: tried.map(String) } : {};
    return { traces, own: { xaxis: { ...ticks, type: axis && positive ? "log" : "linear", title: { text: plain(axis ?? "trial") } }, yaxis: { title: { text: `held-out score${lower ? " (lower is better)" : ""}` } } } };
  };
})();
