/** Runs before anything is shown, and where modules do not: in a page that is opened as a file. */
{
  let theme = new URLSearchParams(location.search).get("theme");
  try {
    theme ??= localStorage.getItem("theme");
  } catch {}
  document.documentElement.dataset.theme = theme === "dark" ? "dark" : "light";
}
