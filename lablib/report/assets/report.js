// Draws the report's figures from the record inside the page; asks no network for anything.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const record = read("lab-record");
const drawings = read("lab-drawings");
const root = document.querySelector(".lab");
const places = [...document.querySelectorAll("[data-figure]")];
const shown = places.map((place) => {
  const { figure, spec, run, frames } = drawings[place.dataset.figure];
  return drawFigure(place, figure, spec, run === null ? frames : record.runs[run].frames, root);
});
Promise.all(shown).then(() => (document.body.dataset.ready = String(shown.length)));
const folds = () => document.querySelectorAll("details");
addEventListener("beforeprint", () => folds().forEach((fold) => { fold.dataset.was = fold.open; fold.open = true; }));
addEventListener("afterprint", () => folds().forEach((fold) => { fold.open = fold.dataset.was === "true"; }));
