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
  // A page that lies in the folder it tells of knows where that is, if it is read from the disk.
  const own = location.protocol === "file:" ? decodeURI(location.pathname).replace(/\/[^/]*$/, "") : "";
  if (/^[\p{L}\p{N}._/@+-]+$/u.test(own)) {
    for (const code of document.querySelectorAll("code[data-here]")) code.textContent = code.textContent.replaceAll("FOLDER", own);
  }
  const copied = async (pre) => {
    const text = pre.textContent;
    try { await navigator.clipboard.writeText(text); return true; } catch { /* only on safe origins */ }
    getSelection().selectAllChildren(pre);
    return document.execCommand("copy");
  };
  for (const pre of document.querySelectorAll("pre[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = pre.dataset.copy;
    button.addEventListener("click", async () => {
      if (!await copied(pre)) return;  // what is selected can be copied by hand
      button.textContent = pre.dataset.copied;
      setTimeout(() => { button.textContent = pre.dataset.copy; }, 2000);
    });
    pre.before(button);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
