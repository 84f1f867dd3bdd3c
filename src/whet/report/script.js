"use strict";
(() => {
  const root = document.documentElement;
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`);
  const remember = (name, value) => { try { localStorage.setItem(`whet-${name}`, value); } catch { /* not allowed here */ } };
  const recall = (name) => { try { return localStorage.getItem(`whet-${name}`); } catch { return null; } };
  const follow = () => {
    root.lang = chosen("language").value;
    document.title = document.querySelector(`.view[lang="${root.lang}"]`).dataset.title;
  };
  for (const name of ["language", "theme"]) {
    const before = document.getElementById(`${name}-${recall(name)}`);
    if (before) before.checked = true;
    for (const input of document.querySelectorAll(`input[name="${name}"]`)) {
      input.addEventListener("change", () => { remember(name, input.value); follow(); });
    }
  }
  follow();
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
