"use strict";
// Shows pair after pair and keeps each answer before the next question. Writes no HTML.
(() => {
  const known = JSON.parse(document.getElementById("known").textContent);
  const find = (selector) => document.querySelector(selector);
  const sections = ["begin", "trial", "done"].map((id) => document.getElementById(id));
  const show = (id) => { for (const section of sections) section.hidden = section.id !== id; };
  const videos = ["left", "right"].map((side) => find(`video[data-side=${side}]`));
  const buttons = [...document.querySelectorAll("[data-choice]")];
  let voter = "", trials = [], answers = {}, ready = false, busy = false, since = 0, place = null;

  // Where answers are kept: by the server, or in this browser and then as a file.
  const server = {
    async begin() {
      const answer = await fetch(`state?voter=${encodeURIComponent(voter)}`);
      const state = await answer.json();
      if (!answer.ok) throw new Error(state.problem);
      return state;
    },
    async keep(entry) {
      const answer = await fetch("vote", {
        method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ voter, ...entry }),
      });
      if (!answer.ok) throw new Error((await answer.json()).problem);
    },
    async source(code) {
      const answer = await fetch(`media/${code}`);
      if (!answer.ok) throw new Error("a video is missing");
      return URL.createObjectURL(await answer.blob());
    },
  };
  const page = {
    key: `idbench ${known.study} ${known.voter}`,
    votes: {},
    async begin() {
      try { this.votes = JSON.parse(localStorage.getItem(this.key) || "{}"); } catch { this.votes = {}; }
      const found = {};
      for (const vote of Object.values(this.votes)) (found[vote.pair] ||= {})[vote.question] = vote.choice;
      this.offer();
      return { trials: known.trials, answers: found };
    },
    async keep({ pair, question, choice, seconds }) {
      const name = `${pair} ${question}`;
      const { left, right } = trials.find((t) => t.pair === pair);
      if (choice === null) delete this.votes[name];
      else this.votes[name] = { pair, question, left, right, choice, seconds, time: new Date().toISOString() };
      this.offer();
      try { localStorage.setItem(this.key, JSON.stringify(this.votes)); } catch {
        throw new Error("this browser keeps nothing; save the answers as a file before you leave");
      }
    },
    offer() {
      const link = find(".save");
      const file = { schema: 1, study: known.study, voter: known.voter, votes: Object.values(this.votes) };
      if (link.href) URL.revokeObjectURL(link.href);
      link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 2)], { type: "application/json" }));
      link.download = `${known.voter}.json`;
      find(".keep").hidden = !file.votes.length;
    },
    async source(code) { return known.media[code]; },
  };
  const store = known.trials ? page : server;

  const sources = new Map();
  function source(code) {
    if (!sources.has(code)) {
      const found = store.source(code);
      found.catch(() => sources.delete(code));
      sources.set(code, found);
    }
    return sources.get(code);
  }
  function forget(kept) {
    for (const [code, found] of sources) {
      if (kept.has(code)) continue;
      sources.delete(code);
      found.then((url) => url.startsWith("blob:") && URL.revokeObjectURL(url), () => {});
    }
  }
  const codes = (trial) => (trial ? [trial.left, trial.right, ...trial.references] : []);

  const problem = (text) => {
    find(".problem").textContent = text || "";
    find(".problem").hidden = !text;
  };

  // The first question without an answer.
  function next() {
    for (let t = 0; t < trials.length; t++) {
      const given = answers[trials[t].pair] || {};
      const q = known.questions.findIndex(([id]) => !(id in given));
      if (q >= 0) return { t, q };
    }
    return null;
  }

  async function turn(to) {
    const fresh = !place || !to || to.t !== place.t;
    place = to;
    const total = trials.length * known.questions.length;
    const count = Object.values(answers).reduce((n, given) => n + Object.keys(given).length, 0);
    find("progress").max = total;
    find("progress").value = count;
    if (!to) {
      for (const video of videos) video.removeAttribute("src");
      find(".where").textContent = `All ${trials.length} pairs are answered`;
      show("done");
      find("#done h1").focus();
      document.documentElement.dataset.place = "done";
      return;
    }
    const trial = trials[to.t];
    find(".where").textContent = `Pair ${to.t + 1} of ${trials.length}, question ${to.q + 1} of ${known.questions.length}`;
    find(".question").textContent = known.questions[to.q][1];
    const given = (answers[trial.pair] || {})[known.questions[to.q][0]];
    for (const button of buttons) button.classList.toggle("given", button.dataset.choice === given);
    if (fresh) await load(trial, trials[to.t + 1]);
    since = performance.now();
    document.documentElement.dataset.place = `${to.t} ${to.q}`;
  }

  async function load(trial, after) {
    ready = false;
    for (const button of buttons) button.disabled = true;
    show("trial");
    find(".prompt").textContent = trial.prompt;
    const [left, right, ...references] = await Promise.all(codes(trial).map(source));
    const box = find(".references");
    box.replaceChildren(...references.map((url, i) => {
      const image = document.createElement("img");
      image.src = url;
      image.alt = references.length > 1 ? `Reference picture ${i + 1}, from the left` : "Reference picture";
      return image;
    }));
    await Promise.all([[videos[0], left], [videos[1], right]].map(([video, url]) => new Promise((done, failed) => {
      video.onloadeddata = done;
      video.onerror = () => failed(new Error("a video cannot be played"));
      video.src = url;
    })));
    again();
    ready = true;
    for (const button of buttons) button.disabled = false;
    find(".question").focus({ preventScroll: true });
    forget(new Set([...codes(trial), ...codes(after)]));
    for (const code of codes(after)) source(code).catch(() => {});
  }

  function again() {
    for (const video of videos) { video.currentTime = 0; video.play().catch(() => {}); }
  }

  // One answer at a time: a second press waits until the first is kept.
  async function act(work) {
    if (busy) return;
    busy = true;
    try { await work(); problem(""); } catch (error) {
      problem(`Not done: ${error.message}. Is the study still running? Try again.`);
    }
    busy = false;
  }
  const vote = (choice) => act(async () => {
    if (!place || (choice === "tie" && !known.ties)) return;
    if (!ready) {  // loading failed before: once more, and no vote for what was not seen
      const to = place;
      place = null;
      await turn(to);
      return;
    }
    const pair = trials[place.t].pair, question = known.questions[place.q][0];
    await store.keep({ pair, question, choice, seconds: Math.round(performance.now() - since) / 1000 });
    (answers[pair] ||= {})[question] = choice;
    await turn(next());
  });
  const back = () => act(async () => {
    const count = known.questions.length;
    const at = place ? place.t * count + place.q : trials.length * count;
    if (!at) return;
    const to = { t: Math.floor((at - 1) / count), q: (at - 1) % count };
    const pair = trials[to.t].pair, question = known.questions[to.q][0];
    await store.keep({ pair, question, choice: null, seconds: 0 });
    delete (answers[pair] || {})[question];
    await turn(to);
  });

  for (const button of buttons) button.addEventListener("click", () => vote(button.dataset.choice));
  find("[data-act=again]").addEventListener("click", again);
  find("[data-act=back]").addEventListener("click", back);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !find("#begin").hidden) return;
    const choice = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", ArrowDown: "tie", 0: "tie" }[event.key];
    const onButton = event.target.closest && event.target.closest("button, a");
    if (choice) { if (!event.repeat) vote(choice); }
    else if (event.key === "Backspace") { if (!event.repeat) back(); }
    else if (event.key === " " && !onButton) again();
    else return;
    event.preventDefault();
  });
  const form = find("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(async () => {
      voter = form.elements.voter.value.trim();
      ({ trials, answers } = await store.begin());
      place = null;
      await turn(next());
    });
  });
  const asked = known.voter || new URLSearchParams(location.search).get("voter");
  if (asked) form.elements.voter.value = asked;
  if (known.voter) form.elements.voter.readOnly = true;
  document.documentElement.dataset.ready = "1";
})();
