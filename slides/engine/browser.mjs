/** Finds the Chrome, Chromium or Edge of this machine. */
import { existsSync } from "node:fs";
import path from "node:path";
import { UserError } from "./command.mjs";

const variables = ["CHROME_PATH", "PUPPETEER_EXECUTABLE_PATH"];
const names = [
  "google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "microsoft-edge", "microsoft-edge-stable",
  "chrome", "msedge",
];

/**
 * @param {object} [machine]
 * @param {NodeJS.ProcessEnv} [machine.env]
 * @param {string} [machine.platform]
 * @param {(file: string) => boolean} [machine.exists]
 * @returns {string} the program
 */
export function findBrowser({ env = process.env, platform = process.platform, exists = existsSync } = {}) {
  const chosen = variables.find((name) => env[name]);
  const places = chosen ? [env[chosen] ?? ""] : usualPlaces(env, platform);
  const found = places.find(exists);
  if (found) return found;
  throw new UserError(chosen
    ? `There is no browser ${env[chosen]}: ${chosen} must name the program of Chrome, Chromium or Edge.`
    : "A browser prints the slides, and none was found: no Chrome, Chromium or Edge, neither in the usual places nor "
      + `on PATH (${names.join(", ")}). Install one, or say where it is with ${variables[0]}=FILE.`);
}

/**
 * @param {NodeJS.ProcessEnv} env
 * @param {string} platform
 * @returns {string[]}
 */
function usualPlaces(env, platform) {
  const { join, delimiter } = platform === "win32" ? path.win32 : path.posix;
  const folders = (env.PATH ?? env.Path ?? "").split(delimiter).filter(Boolean);
  const ending = platform === "win32" ? ".exe" : "";
  const onPath = names.flatMap((name) => folders.map((folder) => join(folder, name + ending)));
  return [...installed(env, platform, join), ...onPath];
}

/**
 * @param {NodeJS.ProcessEnv} env
 * @param {string} platform
 * @param {(...parts: string[]) => string} join
 * @returns {string[]}
 */
function installed(env, platform, join) {
  if (platform === "win32") {
    const folders = [env.PROGRAMFILES, env["PROGRAMFILES(X86)"], env.LOCALAPPDATA].filter((folder) => folder !== undefined);
    const programs = ["Google/Chrome/Application/chrome", "Chromium/Application/chrome", "Microsoft/Edge/Application/msedge"];
    return programs.flatMap((program) => folders.map((folder) => join(folder, `${program}.exe`)));
  }
  if (platform === "darwin") {
    const folders = ["/Applications", join(env.HOME ?? "/", "Applications")];
    const apps = ["Google Chrome", "Chromium", "Microsoft Edge"];
    return apps.flatMap((app) => folders.map((folder) => join(folder, `${app}.app/Contents/MacOS/${app}`)));
  }
  return ["/opt/google/chrome/chrome", "/snap/bin/chromium"];
}
