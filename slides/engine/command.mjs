/** What our commands share: one line for the user's mistakes, child processes, whole files, the root. */
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { rename, rm, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The repository. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

/** Where the user stands: npm runs our scripts in the repository, and says from where it was called. */
export const here = isStartedByNpm() ? process.env.INIT_CWD ?? root : process.cwd();

/** A program that npm has started, such as a test, may start us in another folder, or another checkout. */
function isStartedByNpm() {
  const { npm_package_json: file = "" } = process.env;
  return existsSync(file) && realpathSync(file) === path.join(root, "package.json")
    && realpathSync(process.cwd()) === path.resolve(root);
}

/** @param {string} file as a message shows it to the user */
export const shown = (file) => path.relative(here, file) || ".";

/** Something that the user can put right; its message is one line that says how. */
export class UserError extends Error {
  /**
   * @param {string} message
   * @param {number} [exitCode] 2 for a command line that makes no sense
   */
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** @param {string} line progress goes to standard error: standard output is the command's own */
export const say = (line) => console.error(line);

/** @param {() => Promise<void>} main */
export async function runCommand(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    say(error.message);
    process.exitCode = error.exitCode;
  }
}

/**
 * Runs a program to its end and passes signals on to it. A terminal's Ctrl-C reaches
 * the program by itself, so that SIGINT is only noted while we wait for it.
 * @param {string} program
 * @param {string[]} args
 * @param {import("node:child_process").SpawnOptions & {started?: (pid: number) => void}} [options]
 * @returns {Promise<{code: number, interrupted: boolean}>} the exit code is 128 + the
 *   number of the signal where one ended the program
 */
export function run(program, args, { started, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: "inherit", ...options });
    let interrupted = false;
    const note = () => {
      interrupted = true;
    };
    const forward = (/** @type {NodeJS.Signals} */ signal) => child.kill(signal);
    const abandon = () => child.kill();
    process.on("SIGINT", note).on("SIGTERM", forward).on("SIGHUP", forward).on("exit", abandon);
    const ended = () =>
      process.off("SIGINT", note).off("SIGTERM", forward).off("SIGHUP", forward).off("exit", abandon);
    child.once("spawn", () => started?.(/** @type {number} */ (child.pid)));
    child.once("error", (error) => (ended(), reject(error)));
    child.once("exit", (code, signal) => {
      ended();
      const number = constants.signals[/** @type {NodeJS.Signals} */ (signal)];
      resolve({ code: code ?? 128 + number, interrupted: interrupted || code === null });
    });
  });
}

/**
 * Writes a file so that nobody ever finds half of it.
 * @param {string} file
 * @param {string | Uint8Array} content
 */
export async function writeWhole(file, content) {
  const unfinished = `${file}.${process.pid}.tmp`;
  try {
    await writeFile(unfinished, content);
    await rename(unfinished, file);
  } finally {
    await rm(unfinished, { force: true });
  }
}
