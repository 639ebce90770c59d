/** The index of decks is light or dark as the decks are; T changes it there too. */
import "./frame.js";
import { startTheme, toggleTheme } from "./theme.js";

startTheme();
addEventListener("keydown", ({ key, ctrlKey, metaKey, altKey }) => {
  if (key.toLowerCase() === "t" && !ctrlKey && !metaKey && !altKey) toggleTheme();
});
