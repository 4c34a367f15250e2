// What changed between two releases: the steps between them. Part of the page's state: `from=0.1&to=0.3`.
"use strict";

(() => {
  const form = document.getElementById("span");
  const { from, to } = form.elements;
  const sections = [...document.querySelectorAll("section.release")];
  const named = (select, name) => [...select.options].find((option) => option.textContent === name);

  const show = () => {
    const [first, last] = [Number(from.value), Number(to.value)].sort((a, b) => a - b);
    let changes = 0;
    for (const section of sections) {
      const place = Number(section.dataset.place);
      section.hidden = place < first || place > last;
      const list = section.querySelector(".changes");
      if (list) list.hidden = place === first && first !== last;
      if (list && place > first && place <= last) changes += list.children.length;
    }
    form.querySelector("output").textContent = `${changes} changes in ${last - first} step${last - first === 1 ? "" : "s"}`;
  };

  const restore = () => {
    const state = atlas.state.read();
    for (const select of [from, to]) {
      const option = named(select, state.get(select.name));
      if (option) select.value = option.value;
    }
    show();
  };

  form.hidden = false;
  form.addEventListener("change", () => {
    show();
    atlas.state.write({ from: from.selectedOptions[0].textContent, to: to.selectedOptions[0].textContent });
  });
  window.addEventListener("hashchange", restore);
  restore();
})();
