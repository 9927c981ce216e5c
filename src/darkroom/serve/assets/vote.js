"use strict";
// One question after another: pictures are seen for some seconds and vanish, then one of them is chosen.

{
  const at = (id) => document.getElementById(id);
  const KEPT = "darkroom-voter";
  let voter = null;
  let now = null; // the question that is asked
  let state = "waiting"; // waiting | loading | seen | asked | sending | done
  let since = 0;

  const ask = async (path, body) => {
    const how = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const answer = await fetch(path, how);
    const told = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(told.error?.message ?? "the server does not answer"), { status: answer.status });
    return told;
  };

  const say = (words, wrong = false) => {
    at("said").textContent = words;
    at("said").className = wrong ? "wrong" : "";
  };

  const turn = (next) => {
    state = next;
    document.body.dataset.state = next;
    at("pictures").hidden = next !== "seen";
    at("go").hidden = next !== "waiting";
    for (const side of ["left", "right"]) at(`choose-${side}`).hidden = next !== "asked";
  };

  const take = (told) => {
    now = told;
    at("progress").max = told.of;
    at("progress").value = told.given;
    document.body.dataset.given = told.given;
    if (told.question === null) {
      say("That was all. Thank you!");
      turn("done");
      return;
    }
    at("asks").textContent = told.asks;
    turn("waiting");
    at("go").focus();
  };

  const load = async (id, url) => {
    at(id).src = url;
    await at(id).decode();
  };

  const begin = async () => {
    if (state !== "waiting" || now === null) return;
    turn("loading");
    try {
      at("middle").hidden = !now.between;
      await Promise.all(["left", "right", "between"].filter((id) => now[id]).map((id) => load(id, now[id])));
    } catch {
      say("The pictures did not come. Press Enter to try again.", true);
      turn("waiting");
      return;
    }
    say("Look at both.");
    turn("seen");
    setTimeout(() => {
      for (const id of ["left", "right", "between"]) at(id).removeAttribute("src");
      say("Left or right?");
      since = performance.now();
      turn("asked");
    }, 1000 * now.shown);
  };

  const choose = async (side) => {
    if (state !== "asked") return;
    const seconds = (performance.now() - since) / 1000;
    turn("sending");
    for (let tries = 1; ; tries++) {
      try {
        const told = await ask(`/voters/${voter}/votes`, { question: now.question, side, seconds: Math.min(seconds, 86400) });
        say("Kept. Press Enter for the next pictures.");
        take(told);
        return;
      } catch (error) {
        // Sent again until it is kept: the server counts the first of a question.
        const passes = !error.status || error.status >= 500 || [408, 429].includes(error.status); // slow, or too many
        say(passes ? `Not kept yet (${error.message}); trying again.` : `Not kept: ${error.message}`, true);
        if (!passes) return;
        await new Promise((done) => setTimeout(done, Math.min(5000, 250 * tries)));
      }
    }
  };

  const enter = async () => {
    voter = localStorage.getItem(KEPT);
    try {
      if (voter !== null) return take(await ask(`/voters/${encodeURIComponent(voter)}`));
    } catch (error) {
      if (error.status !== 404) throw error; // a name of another study
    }
    const told = await ask("/voters", {});
    voter = told.voter;
    localStorage.setItem(KEPT, voter);
    take(told);
  };

  addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      choose(event.key === "ArrowLeft" ? "left" : "right");
    }
    if (event.key === "Enter" || event.key === " ") {
      if (document.activeElement?.id.startsWith("choose-")) return; // a button that was reached by Tab
      event.preventDefault();
      begin();
    }
  });
  at("go").addEventListener("click", begin);
  for (const side of ["left", "right"]) at(`choose-${side}`).addEventListener("click", () => choose(side));
  turn("loading");
  enter().catch((error) => say(`This page cannot go on: ${error.message}`, true));
}
