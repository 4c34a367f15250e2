// What every page has: the theme's button, state behind the hash, scripts on demand, copying of commands.
"use strict";

// State: `#q=lora&category=additive`. A hash without "=" is an anchor of the page and no state.
atlas.state = {
  read() {
    const hash = location.hash.slice(1);
    return new URLSearchParams(hash.includes("=") ? hash : "");
  },
  // Sets what is given and drops what is empty; other pairs stay. No new entry in the history.
  write(pairs) {
    const state = atlas.state.read();
    for (const [name, value] of Object.entries(pairs)) {
      if (value) state.set(name, value);
      else state.delete(name);
    }
    const text = state.toString();
    if (text || location.hash.includes("=")) history.replaceState(null, "", text ? `#${text}` : "#");
  },
};

// Loads a classic script once; data come as scripts too, since a browser reads no JSON from disk.
atlas.load = (() => {
  const loading = new Map();
  return (address) => {
    if (!loading.has(address)) {
      loading.set(address, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = resolve;
        script.onerror = () => reject(new Error(`${address} could not be loaded`));
        document.head.append(script);
      }));
    }
    return loading.get(address);
  };
})();

// An element with properties and children; texts stay texts.
atlas.element = (tag, properties = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

(() => {
  const button = document.getElementById("theme");
  const order = ["system", "light", "dark"];
  const show = () => { button.textContent = `Theme: ${atlas.theme.get()}`; };
  button.hidden = false;
  show();
  button.addEventListener("click", () => {
    atlas.theme.set(order[(order.indexOf(atlas.theme.get()) + 1) % order.length]);
    show();
    document.dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new Event("themechange"));
  });

  for (const block of document.querySelectorAll("pre.copy")) {
    const copy = atlas.element("button", { type: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(block.querySelector("code").textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(block.querySelector("code"));
        copy.textContent = "Selected";
      }
    });
    block.append(copy);
  }
})();
