
"use strict";
(() => {
  const WORDS = {
    en: {
      theme: "Theme", auto: "Auto", light: "Light", dark: "Dark", leave: "Sign out", enter: "Dashboard",
      where: "The admin's key lies in the server's folder: whet-serve/admin.key. This tab alone remembers it.",
      key: "Admin's key", open: "Open", wrongKey: "That is not the admin's key.", refusedHere: "The server refuses: {why}",
      live: "live", lost: "no connection, trying again", weight: "of users get the lighter model",
      hold: "Hold", promote: "Promote one step", resume: "Resume", abort: "Abort", sure: "Press again: {what}",
      timeline: "Share of users over time", quality: "Agreement with the original", evidence: "How near each test is to its boundary",
      evidenceNote: "Evidence on a logarithmic scale. A test decides when its bar is full.", sides: "Both sides",
      traffic: "Requests a second in the last 10 minutes", skills: "Questions asked of both", skillsNote: "Share answered rightly, of questions drawn at random. The bar shows how near a loss is to being proven.", asked: "{n} asked", pairs: "Answers that differ", events: "What happened",
      shadow: "Shadow", time: "Time", requests: "Requests", comparisons: "Comparisons", questions: "Questions", none: "Nothing yet.",
      original: "Original", lighter: "Lighter", of: "{a} of {b}", errors: "Errors",
      first: "First token", each: "Each token after", perSecond: "Requests a second", tokens: "Tokens a second",
      queue: "Waiting", running: "Being answered", ready: "Ready", yes: "yes", no: "no",
      "stops errors": "Stops it: more errors", "stops agreement": "Stops it: too little agreement", "stops feedback": "Stops it: rated down", "stops manner": "Stops it: refusals, other language",
      "stops shift": "Stops it: surer or less sure", "stops skills": "Stops it: a skill is lost", "stops length": "Stops it: answers without an end", "stops harmful": "Stops it: harmful flips",
      "proves agreement": "Proves it: agreement", "proves errors": "Proves it: no more errors",
      meanOf: "mean of the last 20", one: "one request", failsBelow: "mean must reach {a}", provenAbove: "proven above {a}",
      total: "Mean of {n} comparisons: {a}", notKept: "Texts are not kept. To see pairs, start the server with --keep-pairs 20.",
      kept: "At most {n}, for an hour, in memory alone; e-mail addresses, phone, card and resident numbers are masked.",
      prompt: "Prompt", agree: "agreement {a}", errorsLegend: "10 s with errors",
      pass: "pass", fail: "fail", inconclusive: "inconclusive", insufficient: "insufficient", held: "held",
      new: "begun", grow: "grown", resumed: "resumed",
      draft: "Draft: the original writes {a} times as fast, the same words; {b} of {n} guesses kept.",
      draftFailed: "The draft failed, so the original writes alone: {why}",
      saved: "Its {n} tokens took {a} less than the original's would have.", "lost time": "Its {n} tokens took {a} more than the original's would have.", energy: "{a} kWh", money: "{a} of money",
      escalation: "Where it is unsure, the original goes on: {b} of {n} answers. Harmful flips stay below {a}.",
    },
    ko: {
      theme: "테마", auto: "자동", light: "밝게", dark: "어둡게", leave: "로그아웃", enter: "대시보드",
      where: "관리자 키는 서버의 폴더에 있습니다: whet-serve/admin.key. 키는 이 탭에만 남습니다.",
      key: "관리자 키", open: "열기", wrongKey: "관리자 키가 아닙니다.", refusedHere: "서버가 거절했습니다: {why}",
      live: "실시간", lost: "연결이 끊겨 다시 시도하는 중", weight: "경량 모델이 받는 사용자",
      hold: "유지", promote: "한 단계 올리기", resume: "다시 진행", abort: "중단", sure: "한 번 더 누르기: {what}",
      timeline: "시간에 따른 사용자 비율", quality: "원본과의 일치도", evidence: "검정이 경계에 얼마나 가까운가",
      evidenceNote: "증거를 로그 눈금으로 나타냅니다. 막대가 가득 차면 판정이 납니다.", sides: "두 모델",
      traffic: "최근 10분의 초당 요청", skills: "두 모델에 물은 질문", skillsNote: "무작위로 뽑은 질문의 정답률입니다. 막대는 능력을 잃었다는 증명에 얼마나 가까운지 나타냅니다.", asked: "{n}개", pairs: "서로 다른 답", events: "기록",
      shadow: "Shadow", time: "시간", requests: "요청", comparisons: "비교", questions: "질문", none: "아직 없습니다.",
      original: "원본", lighter: "경량 모델", of: "{b} 중 {a}", errors: "오류",
      first: "첫 토큰", each: "이후 토큰마다", perSecond: "초당 요청", tokens: "초당 토큰",
      queue: "대기", running: "답하는 중", ready: "준비됨", yes: "예", no: "아니요",
      "stops errors": "멈춤: 오류가 더 많음", "stops agreement": "멈춤: 일치도가 모자람", "stops feedback": "멈춤: 나쁜 평가", "stops manner": "멈춤: 거부, 다른 언어",
      "stops shift": "멈춤: 확신이 달라짐", "stops skills": "멈춤: 능력을 잃음", "stops length": "멈춤: 끝나지 않는 답", "stops harmful": "멈춤: 해로운 뒤바뀜",
      "proves agreement": "증명: 일치도", "proves errors": "증명: 오류가 더 많지 않음",
      meanOf: "최근 20개의 평균", one: "요청 하나", failsBelow: "평균이 {a} 이상이어야 함", provenAbove: "{a} 초과를 증명",
      total: "비교 {n}회의 평균: {a}", notKept: "텍스트를 보관하지 않습니다. 보려면 서버를 --keep-pairs 20으로 시작하십시오.",
      kept: "최대 {n}개를 한 시간 동안 메모리에만 둡니다. 이메일 주소와 전화, 카드, 주민등록번호는 가립니다.",
      prompt: "프롬프트", agree: "일치도 {a}", errorsLegend: "오류가 있던 10초",
      pass: "통과", fail: "실패", inconclusive: "판단 보류", insufficient: "자료 부족", held: "유지 중",
      new: "시작", grow: "증가", resumed: "다시 진행",
      draft: "초안 모델: 원본이 같은 답을 {a}배 빠르게 씁니다. 예측 {n}개 중 {b} 채택.",
      draftFailed: "초안 모델이 실패하여 원본이 혼자 씁니다: {why}",
      saved: "경량 모델의 토큰 {n}개는 원본이 썼을 때보다 {a} 덜 걸렸습니다.", "lost time": "경량 모델의 토큰 {n}개는 원본이 썼을 때보다 {a} 더 걸렸습니다.", energy: "{a} kWh", money: "비용 {a}",
      escalation: "경량 모델이 확신하지 못하면 원본이 이어 씁니다: 답 {n}개 중 {b}개. 해로운 뒤바뀜은 {a} 미만입니다.",
    },
  };
  const root = document.documentElement, at = (id) => document.getElementById(id);
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const remember = (name, value) => { try { localStorage.setItem(`whet-${name}`, value); } catch { /* not allowed here */ } };
  const recall = (name) => { try { return localStorage.getItem(`whet-${name}`); } catch { return null; } };
  const say = (name, values = {}) =>
    (WORDS[root.lang][name] ?? name).replace(/\{(\w+)\}/g, (_, field) => values[field] ?? "");
  const told = (message) => (message && typeof message === "object" ? message[root.lang] : String(message ?? ""));
  const number = (value, digits = 0) => value.toLocaleString(root.lang, { maximumFractionDigits: digits });
  const percent = (share, digits = 1) => `${number(100 * share, digits)}\u00a0%`;
  const spell = (s) => {
    const [count, unit] = s < .9995 ? [1000 * s, "millisecond"] : s < 90 ? [s, "second"] : s < 5400 ? [s / 60, "minute"] : [s / 3600, "hour"];
    const digits = count < 10 ? 1 : 0;
    return count.toLocaleString(root.lang, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits });
  };
  const clock = (when) => new Date(1000 * when).toLocaleString(root.lang, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

  // Everything that is shown is made here: strings become text nodes, and nothing is ever read as HTML.
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const shown = new Map();
  const draw = (id, input, make) => {  // only what has changed, so that a reader's place and selection stay
    const now = JSON.stringify([root.lang, at(id).clientWidth, input]);
    if (shown.get(id) === now) return;
    shown.set(id, now);
    at(id).replaceChildren(...make(input));
  };
  const track = (share, kind, name) => {
    const inner = el("span");
    inner.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    const about = { class: `track ${kind}`, role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": share };
    return el("div", about, inner);
  };
  const none = () => [el("p", { class: "none" }, say("none"))];

  // -- plots: pixels of the place they stand in ----------------------------------------------------------------------
  const plot = (id, height, left, paint) => {
    const width = Math.max(200, at(id).clientWidth), box = { left, right: width - 8, top: 10, bottom: height - 24, width };
    const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    node.append(...paint(box));
    return [node];
  };
  const text = (x, y, words, anchor = "start") => svg("text", { x, y, "text-anchor": anchor }, words);
  const rule = (box, y, css) => svg("line", { x1: box.left, x2: box.right, y1: y, y2: y, class: css });
  const path = (points, css) => svg("path", { d: `M${points.map((p) => p.map((v) => v.toFixed(1)).join()).join("L")}`, class: css });
  const names = (steps) => [say("shadow"), ...steps.map((step) => `${number(step, 2)} %`)];

  const timeline = ({ history, steps, now }) => plot("timeline", 40 + 26 * (steps.length + 1), 62, (box) => {
    const level = (weight) => steps.filter((step) => step <= weight + 1e-9).length;
    const begin = history[0].at, span = Math.max(1, now - begin);
    const x = (when) => box.left + (box.right - box.left) * Math.max(0, when - begin) / span;
    const y = (weight) => box.bottom - (box.bottom - box.top) * level(weight) / steps.length;
    const made = names(steps).flatMap((name, i) => {
      const weight = i ? steps[i - 1] : 0;
      return [rule(box, y(weight), "grid"), text(box.left - 8, y(weight) + 4, name, "end")];
    });
    const line = [];
    history.forEach((one, i) => line.push([x(one.at), y(one.weight)], [x(history[i + 1]?.at ?? now), y(one.weight)]));
    made.push(path([[line[0][0], box.bottom], ...line, [line.at(-1)[0], box.bottom]], "area"), path(line, "line"));
    for (const one of history) {
      const cx = x(one.at), cy = y(one.weight), title = svg("title", {}, `${clock(one.at)} · ${told(one.reason)}`);
      const cross = `M${cx - 5},${cy - 5}l10,10m0,-10l-10,10`;
      made.push(["fail", "abort"].includes(one.event) ? svg("path", { d: cross, class: "stop" }, title) : svg("circle", { cx, cy, r: 4, class: "grow" }, title));
    }
    made.push(text(box.left, box.bottom + 20, clock(begin)), text(box.right, box.bottom + 20, clock(now), "end"));
    return made;
  });

  const agreement = ({ agreements, bounds }) => plot("quality", 210, 48, (box) => {
    const low = Math.max(0, Math.min(bounds.least - .05, ...agreements) - .02);
    const x = (i) => box.left + (box.right - box.left) * (i + .5) / Math.max(40, agreements.length);
    const y = (share) => box.bottom - (box.bottom - box.top) * (share - low) / (1 - low);
    const made = [1, (1 + low) / 2, low].flatMap((share) => [rule(box, y(share), "grid"), text(box.left - 8, y(share) + 4, percent(share, 0), "end")]);
    made.push(...agreements.map((share, i) => svg("circle", { cx: x(i), cy: y(share), r: 2.5, class: "dot" })));
    const means = agreements.map((_, i) => {
      const last = agreements.slice(Math.max(0, i - 19), i + 1);
      return [x(i), y(last.reduce((a, b) => a + b) / last.length)];
    });
    made.push(path(means, "line"), rule(box, y(bounds.agreement), "bound"), rule(box, y(bounds.least), "least"));
    return made;
  });

  const traffic = ({ original, lighter, cell }) => plot("traffic", 330, 48, (box) => {
    const rate = (counts) => counts.slice(0, -1).map((count) => count / cell);  // the running cell is not whole
    const [ours, theirs] = [rate(lighter.requests), rate(original.requests)], most = Math.max(.1, ...ours, ...theirs);
    const x = (i) => box.left + (box.right - box.left) * i / (ours.length - 1);
    const y = (value) => box.bottom - (box.bottom - box.top) * value / most;
    const made = [0, .5, 1].flatMap((part) => [rule(box, y(part * most), "grid"), text(box.left - 8, y(part * most) + 4, number(part * most, most < 10 ? 2 : 0), "end")]);
    made.push(path(theirs.map((v, i) => [x(i), y(v)]), "other"), path(ours.map((v, i) => [x(i), y(v)]), "line"));
    const bad = [[original, theirs], [lighter, ours]].flatMap(([side, rates]) => rates.map((v, i) => [i, v, side.errors[i]]));
    made.push(...bad.filter(([, , count]) => count).map(([i, v]) => svg("rect", { x: x(i) - 3.5, y: y(v) - 3.5, width: 7, height: 7, class: "bad" })));
    const ago = (ours.length + 1) * cell;
    made.push(text(box.left, box.bottom + 20, `−${spell(ago)}`), text(box.right, box.bottom + 20, "0", "end"));
    return made;
  });

  const sample = (css) => {
    const forms = { dot: () => svg("circle", { cx: 12, cy: 6, r: 3 }), bad: () => svg("rect", { x: 8, y: 2, width: 7, height: 7 }) };
    const form = forms[css]?.() ?? svg("line", { x1: 1, x2: 23, y1: 6, y2: 6 });
    form.setAttribute("class", css);
    return svg("svg", { width: 24, height: 12, "aria-hidden": true }, form);
  };
  const legend = (id, entries) => draw(id, entries, () => entries.map(([css, words]) => el("li", {}, sample(css), words)));

  // -- what stands where -----------------------------------------------------------------------------------------------
  let data = null;
  const stopped = () => ["failed", "aborted", "unknown"].includes(data.status);
  const needs = ({ needs: all, step }) => {
    const label = { seconds: "time", requests: "requests", pairs: "comparisons", questions: "questions" };
    return Object.entries(all).filter(([, need]) => need > 0).map(([name, need]) => {
      const form = name === "seconds" ? spell : number, have = step[name];
      const words = say("of", { a: form(Math.min(have, need)), b: form(need) });
      const full = have >= need ? "full" : "";
      return el("div", {}, el("dt", {}, say(label[name])), el("dd", {}, words, track(have / need, full, say(label[name]))));
    });
  };
  const evidence = (all) => all.map(({ name, stops, share }) => {
    const words = say(`${stops ? "stops" : "proves"} ${name}`);
    const css = stops ? "stops" : share >= 1 ? "full" : "";
    return el("div", {}, el("div", { class: "row" }, el("dt", {}, words), el("dd", {}, percent(share, 0))), track(share, css, words));
  });
  const skills = (all) => {
    const share = (right, count) => (count ? percent(right / count, 0) : "–");
    const head = el("tr", {}, el("th"), ...["original", "lighter"].map((name) => el("th", { scope: "col" }, say(name))));
    const body = all.map((one) => el("tr", {}, el("th", { scope: "row" }, one.skill, el("small", {}, say("asked", { n: number(one.count) })), track(one.share, "stops", one.skill)),
      el("td", {}, share(one.original, one.count)), el("td", {}, share(one.lighter, one.count))));
    return [el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))];
  };
  const helpers = ({ draft, escalation, drift, saved }) => {
    const lines = [];
    if (draft?.failed) lines.push(say("draftFailed", { why: draft.failed }));
    else if (draft) lines.push(say("draft", { a: number(draft.times, 2), b: percent(draft.proposed ? draft.kept / draft.proposed : 0), n: number(draft.proposed) }));
    if (escalation) lines.push(say("escalation", { a: percent(escalation.limit, 2), b: number(escalation.gave_up), n: number(escalation.began) }));
    if (saved) {
      const worth = [[saved.energy, "energy"], [saved.money, "money"]].filter(([value]) => value !== null).map(([value, name]) => say(name, { a: number(value, 3) }));
      lines.push(say(saved.seconds < 0 ? "lost time" : "saved", { n: number(saved.tokens), a: spell(Math.abs(saved.seconds)) }) + worth.map((one) => ` · ${one}`).join(""));
    }
    if (drift) lines.push(told(drift));
    return lines.map((line) => el("p", { class: "soft" }, line));
  };

  const sides = ({ sides: both, requests }) => {
    const timed = (time) => (time ? [spell(time.median), el("small", {}, `95 %: ${spell(time.p95)}`)] : ["–"]);
    const rows = [
      ["requests", (side, seen) => [number(seen.count)]],
      ["errors", (side, seen) => (seen.count ? [`${number(seen.errors)} (${percent(seen.errors / seen.count)})`] : ["–"])],
      ["first", (side) => timed(side.first)], ["each", (side) => timed(side.each)],
      ["perSecond", (side) => [number(side.requests_per_second, 2)]], ["tokens", (side) => [number(side.tokens_per_second, 1)]],
      ["running", (side) => [number(side.running)]], ["queue", (side) => [number(side.queue)]],
      ["ready", (side) => [say(side.ready ? "yes" : "no")]],
    ];
    const head = el("tr", {}, el("th"), ...["original", "lighter"].map((name) => el("th", { scope: "col" }, say(name))));
    const body = rows.map(([name, cell]) => el("tr", {}, el("th", { scope: "row" }, say(name)), ...["original", "lighter"].map((one) => el("td", {}, ...cell(both[one], requests[one])))));
    return [el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))];
  };
  const marked = (words, others) => {  // the part between what both begin and end with, by letters, not code units
    const [mine, other] = [[...words], [...others]], most = Math.min(mine.length, other.length);
    let start = 0, end = 0;
    while (start < most && mine[start] === other[start]) start++;
    while (end < most - start && mine.at(-1 - end) === other.at(-1 - end)) end++;
    const part = (from, to) => mine.slice(from, to).join("");
    return [part(0, start), el("mark", {}, part(start, mine.length - end)), part(mine.length - end)];
  };
  const pairs = (kept) => {
    const open = new Set([...document.querySelectorAll("#pairs details[open]")].map((one) => one.dataset.at));
    return kept.length ? kept.map((pair) => {
      const cell = (name, words, css = "") => el("div", { class: css }, el("dt", {}, say(name)), el("dd", {}, ...words));
      const about = `${clock(pair.at)} · ${say("agree", { a: percent(pair.agreement, 0) })}`;
      const node = el("details", { "data-at": pair.at }, el("summary", {}, el("span", {}, about), pair.prompt.slice(-120)),
        el("dl", { class: "both" }, cell("prompt", [pair.prompt], "asked"), cell("original", marked(pair.original, pair.lighter)), cell("lighter", marked(pair.lighter, pair.original))));
      node.open = open.has(String(pair.at));
      return node;
    }) : none();
  };
  const events = (history) => history.slice().reverse().map((one) => {
    const name = one.event === "resume" ? "resumed" : one.event, serves = ["running", "held"].includes(one.status);
    const weight = one.weight || !serves ? `${number(one.weight, 2)} %` : say("shadow");
    return el("li", {}, el("time", {}, clock(one.at)), el("span", {}, weight), el("span", {}, told(one.reason) || say(name)));
  });

  const render = () => {
    root.lang = chosen("language");
    for (const node of document.querySelectorAll("[data-say]")) {
      const words = say(node.dataset.say);
      if (!node.classList.contains("sure") && node.textContent !== words) node.textContent = words;
    }
    if (!data) return;
    at("model").textContent = data.model;
    document.title = `${number(data.weight, 2)} % · ${say(data.verdict)} · ${data.model} · whet`;
    at("weight").textContent = `${number(data.weight, 2)} %`;
    const held = data.status === "held" ? ` · ${say("held")}` : "";
    at("verdict").textContent = say(data.verdict) + held;
    at("verdict").className = `badge ${data.verdict}`;
    at("head").className = `head ${data.verdict}`;
    at("because").textContent = told(data.because);
    at("steps").className = `steps ${stopped() ? "stopped" : ""}`;
    draw("steps", [data.steps, data.stage], ([steps, stage]) => names(steps).map((name, i) =>
      el("li", { class: `${i <= stage ? "done" : ""} ${i === stage ? "here" : ""}`, ...(i === stage ? { "aria-current": "step" } : {}) }, name)));
    draw("needs", stopped() ? { needs: {}, step: {} } : { needs: data.step.needs, step: data.step }, needs);
    const can = { hold: data.status === "running", promote: !stopped() && data.stage < data.steps.length, resume: data.status !== "running", abort: data.status !== "aborted" };
    for (const button of document.querySelectorAll("[data-act]")) button.disabled = !can[button.dataset.act];
    draw("timeline", { history: data.history, steps: data.steps, now: data.now }, (one) => (one.history.length ? timeline(one) : none()));
    draw("quality", { agreements: data.agreements, bounds: data.bounds }, (one) => (one.agreements.length ? agreement(one) : none()));
    legend("qualityLegend", !data.agreements.length ? [] : [["line", say("meanOf")], ["dot", say("one")],
      ["bound", say("failsBelow", { a: percent(data.bounds.agreement) })], ["least", say("provenAbove", { a: percent(data.bounds.least) })]]);
    at("total").textContent = data.agreement === null ? "" : say("total", { n: number(data.pairs), a: percent(data.agreement, 2) });
    draw("evidence", data.evidence, evidence);
    at("skillsPart").hidden = !data.skills.length;
    draw("skills", data.skills, skills);
    draw("sides", { sides: data.sides, requests: data.requests }, sides);
    draw("helpers", { draft: data.draft, escalation: data.escalation, drift: data.drift, saved: data.saved }, helpers);
    draw("traffic", { ...data.sides, cell: data.cell }, traffic);
    legend("trafficLegend", [["line", say("lighter")], ["other", say("original")], ["bad", say("errorsLegend")]]);
    at("pairsNote").textContent = data.kept ? say("kept", { n: data.kept }) : say("notKept");
    draw("pairs", data.pairs_kept, (kept) => (data.kept ? pairs(kept) : []));
    draw("events", data.history, events);
  };

  // -- the server ------------------------------------------------------------------------------------------------------
  let key = sessionStorage.getItem("whet-admin"), watching = null;
  const headers = () => ({ Authorization: `Bearer ${key}` });
  let link = "";
  const state = (name = link) => {
    link = name;
    at("live").className = { live: "on", lost: "off" }[name] ?? "";
    at("live").textContent = name ? say(name) : "";
  };
  const leave = (why = "") => {
    sessionStorage.removeItem("whet-admin");
    watching?.abort();
    key = data = watching = null;
    shown.clear();
    for (const node of document.querySelectorAll("#timeline, #quality, #evidence, #skills, #helpers, #sides, #traffic, #pairs, #events")) node.replaceChildren();
    state("");
    at("model").textContent = "";
    at("wrong").textContent = why;
    at("board").hidden = at("leave").hidden = true;
    at("enter").hidden = false;
    at("key").focus();
  };
  const why = async (answer) => {
    const found = await answer.json().catch(() => ({}));
    return found.refused?.message ?? found.refused ?? found.error?.message ?? String(answer.status);
  };
  const read = async (answer) => {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      const last = parts.filter((part) => part.startsWith("data: ")).pop();
      if (!last) continue;
      data = JSON.parse(last.slice(6));
      at("enter").hidden = true;
      at("board").hidden = at("leave").hidden = false;
      state("live");
      render();
    }
  };
  const watch = async () => {
    const mine = watching = new AbortController();
    while (watching === mine) {
      try {
        const answer = await fetch("/admin/events", { headers: headers(), signal: mine.signal, cache: "no-store" });
        if (answer.status === 401) return leave(say("wrongKey"));
        if (answer.ok) await read(answer);
        else if (!data) return leave(say("refusedHere", { why: await why(answer) }));
      } catch { /* gone: it is tried again */ }
      if (watching !== mine) return;
      if (data) state("lost");
      else at("wrong").textContent = say("lost");
      await new Promise((next) => setTimeout(next, 2000));
    }
  };
  const enter = (given) => {
    key = given;
    sessionStorage.setItem("whet-admin", key);
    watch();
  };
  at("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = at("key").value.trim();
    at("key").value = at("wrong").textContent = "";
    if (/^[\x20-\x7e]+$/.test(given)) enter(given);
    else at("wrong").textContent = say("wrongKey");
  });
  at("leave").addEventListener("click", () => leave());
  const act = async (button) => {
    const action = button.dataset.act;
    if (["promote", "abort"].includes(action) && !button.classList.contains("sure")) {
      button.classList.add("sure");
      button.textContent = say("sure", { what: say(action) });
      setTimeout(() => { button.classList.remove("sure"); render(); }, 4000);
      return;
    }
    button.classList.remove("sure");
    at("refused").textContent = "";
    try {
      const answer = await fetch(`/admin/rollout/${action}`, { method: "POST", headers: headers() });
      if (answer.ok) Object.assign(data, { status: (await answer.json()).status });
      else at("refused").textContent = say("refusedHere", { why: await why(answer) });
    } catch { state("lost"); }
    render();
  };
  for (const button of document.querySelectorAll("[data-act]")) button.addEventListener("click", () => act(button));
  for (const name of ["language", "theme"]) {
    const before = at(`${name}-${recall(name) ?? (name === "language" && navigator.language.startsWith("ko") ? "ko" : "")}`);
    if (before) before.checked = true;
    for (const input of document.querySelectorAll(`input[name="${name}"]`)) {
      input.addEventListener("change", () => { remember(name, input.value); render(); state(); });
    }
  }
  addEventListener("resize", render);
  render();
  if (key) watch();
  else leave();
})();
