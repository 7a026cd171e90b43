// Buttons of the mention that is shown, and their keys: 1 to 9, n, s, u.
const send = (button) => {
  const position = button.closest("[data-position]")?.dataset.position ?? "-1";
  trigger("submit", { position: Number(position), choice: button.dataset.choice });
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
