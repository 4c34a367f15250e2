// Draws a figure when it comes near the window: plotly and the data are loaded then and not before. What a figure shows
// is in `atlas.figures`: a function of data, chosen options and the page's look that gives plotly's traces and layout.
"use strict";

(() => {
  const root = document.body.dataset.root;

  const look = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      page: colour("page"), ink: colour("ink"), faint: colour("faint"), quiet: colour("quiet"), accent: colour("accent"),
      series: Array.from({ length: 8 }, (_, number) => colour(`series-${number}`)),
      symbols: ["circle", "square", "triangle-up", "diamond", "cross", "x", "triangle-down", "hexagon"],
      narrow: innerWidth < 640,
    };
  };

  // Plotly reads a little HTML in texts; names are texts.
  atlas.plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  atlas.short = (text, longest = 26) => atlas.plain(text.length > longest ? `${text.slice(0, longest - 1)}…` : text);

  const layout = (own, style) => {
    const axis = { gridcolor: style.faint, linecolor: style.quiet, zeroline: false, ticks: "outside", tickcolor: style.faint, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: style.ink },
      margin: { l: 50, r: 12, t: 8, b: 44 }, height: 430, hovermode: "closest",
      hoverlabel: { bgcolor: style.page, bordercolor: style.quiet, font: { color: style.ink } },
      legend: style.narrow ? { orientation: "h", y: -0.22 } : {},
      ...own,
      xaxis: { ...axis, ...own.xaxis }, yaxis: { ...axis, ...own.yaxis },
    };
  };

  const name = (figure, select) => `${figure.dataset.plot}-${select.name}`;

  const draw = async (figure) => {
    const canvas = figure.querySelector(".canvas");
    try {
      await Promise.all([atlas.load(`${root}assets/plotly.min.js`), figure.dataset.script && atlas.load(figure.dataset.script)]);
      const choice = Object.fromEntries([...figure.querySelectorAll("select")].map((select) => [select.name, select.value]));
      const style = look();
      const { traces, own } = atlas.figures[figure.dataset.plot](atlas.suites[figure.dataset.suite], choice, style);
      canvas.querySelector(".waiting")?.remove();
      const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
      const whole = layout(own, style);
      canvas.style.height = `${whole.height}px`;
      await Plotly.react(canvas, traces, whole, config);
      figure.dataset.drawn = "yes";
    } catch (error) {
      canvas.replaceChildren(atlas.element("p", { className: "waiting" }, `This plot cannot be drawn: ${error.message}`));
    }
  };

  const figures = [...document.querySelectorAll("figure.plot")];
  for (const figure of figures) {
    figure.querySelector(".waiting").textContent = "Loading the plot.";
    for (const select of figure.querySelectorAll("select")) {
      const wish = atlas.state.read().get(name(figure, select));
      if ([...select.options].some((option) => option.value === wish)) select.value = wish;
      select.addEventListener("change", () => { draw(figure); atlas.state.write({ [name(figure, select)]: select.value }); });
    }
  }
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "300px" });
  document.addEventListener("DOMContentLoaded", () => figures.forEach((figure) => near.observe(figure)));
  document.addEventListener("themechange", () => figures.filter((figure) => figure.dataset.drawn).forEach(draw));
})();
