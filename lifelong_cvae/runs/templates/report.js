// The slider through what was drawn after each task. Without this script all of it is shown.
const slider = document.querySelector("#task");
if (slider) {
  const tables = [...document.querySelectorAll(".drawn")];
  const show = () => {
    tables.forEach((table, index) => { table.hidden = index !== Number(slider.value); });
    const label = tables[slider.value].dataset.label;
    document.querySelector("output[for=task]").textContent = label;
    slider.setAttribute("aria-valuetext", `after task ${label}`);
  };
  slider.addEventListener("input", show);
  document.querySelector(".slider").hidden = false;
  show();
}
