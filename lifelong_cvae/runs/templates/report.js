// The slider through the images that were imagined after each task. Without this script, all of them are visible.
const slider = document.querySelector("#task");
if (slider) {
  const tables = [...document.querySelectorAll(".imagined")];
  const showTable = () => {
    tables.forEach((table, index) => { table.hidden = index !== Number(slider.value); });
    const label = tables[slider.value].dataset.label;
    document.querySelector("output[for=task]").textContent = label;
    slider.setAttribute("aria-valuetext", `after task ${label}`);
  };
  slider.addEventListener("input", showTable);
  document.querySelector(".slider").hidden = false;
  showTable();
}
