// Runs before the page is drawn, so that a chosen theme does not flash. Storage may be refused: then the system decides.
"use strict";

window.atlas = { suites: {}, figures: {} };

atlas.theme = {
  get() {
    try {
      return localStorage.getItem("peft-atlas-theme") || "system";
    } catch {
      return document.documentElement.dataset.theme || "system";
    }
  },
  set(name) {
    document.documentElement.dataset.theme = name;
    try {
      localStorage.setItem("peft-atlas-theme", name);
    } catch {
      // this page keeps it, others do not
    }
  },
};

document.documentElement.dataset.theme = atlas.theme.get();
