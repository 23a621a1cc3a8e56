// Prices without leaving the page, shows the chosen image, takes dropped ones. The form works without it.
"use strict";
const form = document.getElementById("product");
const answer = document.getElementById("answer");
const status = document.getElementById("status");
const button = form.querySelector("button[type=submit]");
const drop = document.getElementById("drop");
const image = document.getElementById("image");
const preview = document.getElementById("preview");

function say(problem) {
  const line = document.createElement("p");
  line.className = "problem";
  line.role = "alert";
  line.textContent = problem;
  answer.replaceChildren(line);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  status.textContent = "Pricing…";
  try {
    const response = await fetch("answer", { method: "POST", body: new FormData(form) });
    const text = await response.text();
    if (response.ok) {
      answer.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
    } else {
      say(JSON.parse(text).detail);
    }
    status.textContent = "";
  } catch {
    status.textContent = "";
    say("The server can't be reached.");
  }
  button.disabled = false;
  answer.focus();
});

form.addEventListener("reset", () => answer.replaceChildren());

function show() {
  URL.revokeObjectURL(preview.src);
  preview.hidden = image.files.length === 0;
  if (!preview.hidden) preview.src = URL.createObjectURL(image.files[0]);
}

if (drop) {
  image.addEventListener("change", show);
  form.addEventListener("reset", () => setTimeout(show));
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) {
      image.files = event.dataTransfer.files;
      show();
    }
  });
  preview.addEventListener("error", () => (preview.hidden = true));
}
