// Buttons of the mention that is shown, and their keys: 1 to 9, n, s, u.
const send = (button) => {
  const place = button.closest("[data-place]")?.dataset.place ?? "-1";
  trigger("submit", { place: Number(place), choice: button.dataset.choice });
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-choice]");
  if (button) send(button);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("input, textarea, select, [contenteditable]") || !element.offsetParent) return;
  const button = [...element.querySelectorAll("[data-choice]")].find(
    (other) => other.querySelector("kbd").textContent === event.key.toLowerCase(),
  );
  if (button) send(button);
});
