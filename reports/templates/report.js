"use strict";
// Sorting, filtering, playing. Nothing here writes HTML: values go in as text and attributes.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const form = document.querySelector(".tools");
  const list = document.querySelector(".cards");
  const empty = document.querySelector(".empty");
  const pagers = all(".pages");
  const lower = new Set(JSON.parse(document.body.dataset.lower || "[]"));
  const size = +list.dataset.page;
  // Only one page of cards is in the document: a thousand of them would make every sort lag.
  // Those of the first page are there already; the others are text, made into cards when shown.
  const cards = [...list.children].map((holder, place) => {
    const node = holder.matches(".card") ? holder : null;
    const id = node ? node.id : holder.dataset.key;
    const prompt = node ? node.querySelector(".prompt").textContent : holder.dataset.prompt;
    const { split, category, status, identities, values, runs } = holder.dataset;
    return {
      id, place, node, split, category, status, about: holder.dataset,
      html: node ? "" : holder.textContent,
      identities: JSON.parse(identities), values: JSON.parse(values), runs: runs.split(" ").map(Number),
      text: `${prompt} ${id}`.toLowerCase(),
    };
  });
  list.replaceChildren(...cards.flatMap((card) => card.node || []));
  const parser = new DOMParser();
  const same = ["split", "category", "status"];
  const filters = [...same, "identity", "find"];
  let order = cards, page = 0;
  form.hidden = false;

  // Together: parsing each card for itself takes eight times as long.
  function make(wanted) {
    const missing = wanted.filter((card) => !card.node);
    const made = parser.parseFromString(missing.map((card) => card.html).join(""), "text/html");
    const nodes = [...document.importNode(made.body, true).children];
    missing.forEach((card, i) => {
      card.node = nodes[i];
      card.html = "";
      Object.assign(card.node.dataset, card.about);
      all("video", card.node).forEach(prepare);
    });
  }

  const chosen = (name) => (form.elements[name] ? form.elements[name].value : "");
  const runs = () => {
    const boxes = all("input[name=run]", form);
    return boxes.length ? new Set(boxes.filter((b) => b.checked).map((b) => +b.value)) : null;
  };

  function update() {
    const shown = runs();
    const words = chosen("find").toLowerCase().split(/\s+/).filter(Boolean);
    const [metric, end] = chosen("sort").split(" ");
    // "Worst" of a card is the worst among the videos shown; what has no value comes last.
    const up = (end === "worst") !== lower.has(metric);
    const key = (card) => {
      if (end === "ahead" || end === "behind") return -gain(card, metric) * (end === "ahead" ? 1 : -1);
      const values = (card.values[metric] || []).filter(([run]) => !shown || shown.has(run)).map((p) => p[1]);
      return values.length ? (up ? Math.min(...values) : -Math.max(...values)) : Infinity;
    };
    const fits = (card) =>
      same.every((n) => !chosen(n) || card[n] === chosen(n))
      && (!chosen("identity") || card.identities.includes(chosen("identity")))
      && words.every((word) => card.text.includes(word));
    order = cards.filter(fits);
    if (metric) {
      const keys = new Map(order.map((card) => [card, key(card)]));
      order.sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        if (x !== x || y !== y) return (x !== x) - (y !== y) || a.place - b.place;
        return x === y ? a.place - b.place : x < y ? -1 : 1;
      });
    }
    show(0);
  }

  // How much better the first of two systems is in a sample: of those ticked, the first two.
  function gain(card, metric) {
    const [a, b] = [...(runs() || [])];
    const value = (run) => ((card.values[metric] || []).find((p) => p[0] === run) || [])[1];
    return (value(a) - value(b)) * (lower.has(metric) ? -1 : 1);
  }

  // Puts one page of the samples that fit into the document, or all of them for printing.
  function show(asked, everything = false) {
    const pages = Math.max(1, Math.ceil(order.length / size));
    page = Math.max(0, Math.min(asked, pages - 1));
    const first = page * size;
    const wanted = everything ? order : order.slice(first, first + size);
    make(wanted);
    const nodes = wanted.map((card) => card.node);
    const shown = runs();
    if (shown) for (const node of nodes) for (const take of all(".take", node)) take.hidden = !shown.has(+take.dataset.run);
    if (nodes.length !== list.children.length || nodes.some((node, i) => list.children[i] !== node)) list.replaceChildren(...nodes);
    const count = order.length.toLocaleString("en");
    form.elements.count.textContent = (order.length === 1 ? "1 sample" : `${count} samples`)
      + (pages > 1 ? `, ${first + 1} to ${first + nodes.length} shown` : "");
    empty.hidden = order.length > 0;
    for (const pager of pagers) {
      pager.hidden = pages === 1;
      pager.querySelector("b").textContent = pages;
      Object.assign(pager.querySelector("input"), { max: pages, value: page + 1 });
      for (const button of all("button", pager)) button.disabled = page + +button.dataset.step < 0 || page + +button.dataset.step >= pages;
    }
  }
  function turn(asked) {
    show(asked);
    remember("");
    const first = list.firstElementChild;
    first.focus({ preventScroll: true });
    first.scrollIntoView({ block: "start", behavior: "instant" });
  }
  for (const pager of pagers) {
    for (const button of all("button", pager)) button.addEventListener("click", () => turn(page + +button.dataset.step));
    pager.querySelector("input").addEventListener("change", (event) => turn((Math.floor(+event.target.value) || 1) - 1));
  }
  form.addEventListener("input", () => { update(); remember(""); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { update(); remember(""); }));
  const grid = form.elements.grid;
  function setGrid(on) {
    grid.setAttribute("aria-pressed", on);
    list.classList.toggle("grid", on);
  }
  grid.addEventListener("click", () => { setGrid(grid.getAttribute("aria-pressed") !== "true"); remember(""); });

  // The address: #s-SAMPLE&sort=...&category=...; what is not set is left out. The browser keeps the
  // view with each entry of its history too, so that going back brings back the view of that entry.
  const fields = ["sort", ...filters];
  function view() {
    const state = new URLSearchParams(fields.filter(chosen).map((name) => [name, chosen(name)]));
    const shown = runs();
    if (shown && shown.size < all("input[name=run]", form).length) state.set("systems", [...shown].join(" "));
    if (grid.getAttribute("aria-pressed") === "true") state.set("grid", "1");
    if (page) state.set("page", page + 1);
    return state.toString();
  }
  function remember(sample) {
    history.replaceState({ view: view() }, "", `#${[sample && encodeURIComponent(sample), view()].filter(Boolean).join("&")}`);
  }
  // Sets what the address names; the name of a sample in it is returned. `whole`: the address is all
  // there is to the view; otherwise it is a link, which changes only what it names.
  function recall(whole) {
    const parts = location.hash.slice(1).split("&");
    let sample = "";
    if (parts[0].startsWith("s-")) try { sample = decodeURIComponent(parts.shift()); } catch { return ""; }
    const kept = history.state && history.state.view;
    if (typeof kept === "string") whole = true;
    const state = new URLSearchParams(typeof kept === "string" ? kept : parts.join("&"));
    const named = [...fields, "systems", "grid", "page"].some((name) => state.has(name));
    if (!named && typeof kept !== "string") {
      if (!sample) history.replaceState({ view: view() }, "");  // a link to a section
      return sample;
    }
    for (const name of fields) {
      const field = form.elements[name];
      if (!field || !(whole || state.has(name))) continue;
      field.value = state.get(name) || "";
      if (field.selectedIndex === -1) field.value = "";  // of another report
    }
    if (state.has("systems") || whole) {
      const shown = state.has("systems") ? state.get("systems").split(" ") : null;
      for (const box of all("input[name=run]", form)) box.checked = !shown || shown.includes(box.value);
    }
    if (whole) setGrid(state.has("grid"));
    update();
    if (whole && state.has("page")) show((Math.floor(+state.get("page")) || 1) - 1);
    if (!sample && !whole) { remember(""); document.querySelector("#samples").scrollIntoView(); }
    return sample;
  }

  // The samples that fit, one row for each video, as a spreadsheet reads them.
  form.elements.csv.addEventListener("click", () => {
    const labels = all("input[name=run]", form).map((box) => box.parentNode.textContent.trim());
    const names = [...new Set(cards.flatMap((card) => Object.keys(card.values)))];
    const cell = (value) => {
      const text = String(value ?? "");
      const safe = typeof value === "string" && /^[=+@\-\t\r]/.test(text) ? `'${text}` : text;
      return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const rows = [["sample", "split", "category", "identities", "system", ...names]];
    const shown = runs();
    for (const card of order) {
      for (const run of card.runs) {
        if (shown && !shown.has(run)) continue;
        const value = (metric) => ((card.values[metric] || []).find((p) => p[0] === run) || [])[1];
        rows.push([card.id.slice(2), card.split, card.category, card.identities.join(" "), labels[run] || document.querySelector("h1").textContent, ...names.map(value)]);
      }
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }));
    link.download = "samples.csv";
    document.body.dataset.csv = rows.length - 1;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // Points of the figure show their sample; names of categories filter.
  for (const figure of all("figure[data-points]")) {
    JSON.parse(figure.dataset.points).forEach((keys, run) => all(`g[id$="-points-${run}"] use`, figure).forEach((point, i) => {
      if (!keys[i]) return;
      point.classList.add("clickable");
      point.addEventListener("click", () => { location.hash = `#${encodeURIComponent(keys[i])}`; });
    }));
  }
  for (const figure of all("figure[data-filter=category]")) {
    const known = new Set(cards.map((card) => card.category));
    for (const text of all("text", figure)) {
      const name = text.textContent.trim();
      if (!known.has(name)) continue;
      text.classList.add("clickable");
      text.addEventListener("click", () => { location.hash = `#${new URLSearchParams({ category: name })}`; });
    }
  }
  addEventListener("beforeprint", () => show(page, true));
  addEventListener("afterprint", () => show(page));

  // A link to a sample shows it even when it is on another page, or the filters hide it.
  function select() {
    const id = recall(false);
    for (const card of cards) if (card.node) card.node.classList.toggle("chosen", card.id === id);
    const card = cards.find((c) => c.id === id);
    if (!card) return;
    if (!order.includes(card)) {
      for (const name of filters) if (form.elements[name]) form.elements[name].value = "";
      update();
    }
    show(Math.floor(order.indexOf(card) / size));
    card.node.classList.add("chosen");
    remember(id);
    card.node.focus({ preventScroll: true });
    // Cards above are measured only when they come near: once more when they have been.
    const near = () => card.node.scrollIntoView({ block: "center", behavior: "instant" });
    near();
    requestAnimationFrame(() => requestAnimationFrame(near));
  }
  addEventListener("hashchange", select);

  // Videos play while they are in sight.
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let playing = !still;
  const visible = new Set();
  const button = form.elements.play;
  const play = (video) => video.play().catch(() => {});
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target); else visible.delete(target);
      if (isIntersecting && playing && !target.dataset.held) play(target); else target.pause();
    }
    follow();
  }, { threshold: 0.2 });
  const say = () => { button.textContent = playing ? "Pause videos" : "Play videos"; };
  button.addEventListener("click", () => {
    playing = !playing;
    say();
    for (const video of visible) { delete video.dataset.held; if (playing) play(video); else video.pause(); }
    follow();
  });
  say();

  const frameOf = (video) => Math.min(Math.floor(video.currentTime * video.dataset.fps + 1e-3), video.dataset.frames - 1);
  function hold(video, frame) {
    video.dataset.held = "1";
    video.pause();
    const last = video.dataset.frames - 1;
    const go = () => { video.currentTime = (Math.max(0, Math.min(frame, last)) + 0.5) / video.dataset.fps; };
    if (video.readyState) go();
    else { video.addEventListener("loadedmetadata", go, { once: true }); video.preload = "auto"; video.load(); }
  }
  function toggle(video) {
    if (video.paused) { delete video.dataset.held; play(video); follow(); } else { video.dataset.held = "1"; video.pause(); }
  }
  function prepare(video) {
    video.controls = false;
    video.tabIndex = 0;
    watcher.observe(video);
    video.addEventListener("click", () => toggle(video));
    video.addEventListener("seeked", () => mark(video));
    video.addEventListener("error", () => {
      const note = document.createElement("p");
      note.className = "why";
      note.textContent = video.src.startsWith("data:") ? "This browser cannot play this video."
        : "The video was not found or cannot be played. This page links to its videos: they have to stay in place beside it.";
      video.closest(".shown").after(note);
    }, { once: true });
    video.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === " " || event.key === "Enter") toggle(video);
      else if (step) hold(video, frameOf(video) + step);
      else return;
      event.preventDefault();
    });
  }
  all("video", list).forEach(prepare);
  list.addEventListener("click", (event) => {
    const track = event.target.closest(".track");
    const video = track && track.closest(".take").querySelector("video");
    if (!video) return;
    const frames = track.dataset.frames.split(" ").map(Number);
    const box = track.getBoundingClientRect();
    const place = Math.floor((event.clientX - box.left) / box.width * frames.length);
    hold(video, frames[Math.max(0, Math.min(place, frames.length - 1))]);
  });

  // A line over faces and curves goes along with the video.
  function mark(video) {
    const now = frameOf(video);
    for (const track of all(".track", video.closest(".take"))) {
      const frames = track.dataset.frames.split(" ").map(Number);
      let nearest = 0;
      frames.forEach((f, i) => { if (Math.abs(f - now) < Math.abs(frames[nearest] - now)) nearest = i; });
      const head = track.querySelector(".head");
      head.hidden = false;
      head.style.left = `${100 * (nearest + 0.5) / frames.length}%`;
    }
  }
  let ticking = false;
  function follow() {
    if (ticking) return;
    ticking = true;
    const tick = () => {
      const moving = [...visible].filter((video) => !video.paused);
      moving.forEach(mark);
      ticking = moving.length > 0;
      if (ticking) setTimeout(() => requestAnimationFrame(tick), 60);
    };
    // A video begins to play a moment after it was asked to.
    setTimeout(tick, 250);
  }

  // Column heads that sort.
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      if (!head.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) if (other.dataset.sort) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const cell = row.children[column];
          return head.dataset.sort === "number" ? (cell.dataset.value === "" ? NaN : +cell.dataset.value) : cell.textContent.trim();
        };
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const x = value(a), y = value(b);
          if (x !== x || y !== y) return (x !== x) - (y !== y);
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  show(0);
  recall(true);
  document.documentElement.dataset.ready = "1";
  select();
})();
