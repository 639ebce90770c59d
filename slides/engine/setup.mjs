/**
 * Sets up a checkout: npm packages and a Python environment. Node's built-ins only,
 * because this runs before there is any package.
 *
 * Either part ends by writing a stamp of what it was made from into the folder that it
 * made. A folder without the right stamp is not finished, whatever it looks like.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, appendFile, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { uptime } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { copyBrowserFiles } from "./browser-files.mjs";
import { UserError, root, run, say, writeWhole } from "./command.mjs";

const oldestNode = 20;
const oldestPython = [3, 11];
const windows = process.platform === "win32";

const lock = path.join(root, ".setup.lock");
const nodeModules = path.join(root, "node_modules");
const venv = path.join(root, ".venv");
const venvPython = path.join(venv, windows ? "Scripts/python.exe" : "bin/python");
const unfinished = path.join(venv, "unfinished");

/** npm packages as package-lock.json has them, and the browser's files from them. */
export async function setUpNode() {
  if (Number(process.versions.node.split(".")[0]) < oldestNode)
    throw new UserError(`Node ${oldestNode} or newer is needed; this is ${process.version}.`);
  const stamp = path.join(nodeModules, ".setup.json");
  const wanted = JSON.stringify({
    lock: sha256(await readFile(path.join(root, "package-lock.json"), "utf8")),
    platform: `${process.platform}-${process.arch}`,
  });
  const ready = async () => (await readText(stamp)) === wanted;
  if (!(await ready())) await locked(async () => {
    if (await ready()) return;
    say("Installing npm packages …");
    await rm(stamp, { force: true });
    await attempt("npm could not install the packages", npm("ci", "--include=dev", "--no-audit", "--no-fund"));
    await writeWhole(stamp, wanted);
  });
  await copyBrowserFiles();
}

/**
 * A virtual environment .venv with the packages of a requirements file.
 * @param {string} requirements the file, relative to the repository
 * @returns {Promise<string>} the environment's Python
 */
export async function setUpPython(requirements) {
  const wanted = await requirementHashes(requirements);
  if (!(await environment()).has(wanted)) await locked(async () => {
    let { identity, has } = await environment();
    if (has(wanted)) return;
    identity ??= await makeEnvironment();
    say(`Installing the Python packages of ${requirements} …`);
    await writeStamp({ identity, requirements: {} });
    await forgetHalfInstalledPackages();
    const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"];
    await attempt(`pip could not install ${requirements}`,
      { program: venvPython, args: [...pip, "-r", requirements] });
    await writeStamp({ identity, requirements: wanted });
  });
  return venvPython;
}

// npm -----------------------------------------------------------------------

/** @param {string[]} args */
function npm(...args) {
  const script = process.env.npm_execpath;
  return script?.endsWith("npm-cli.js")
    ? { program: process.execPath, args: [script, ...args] }
    : { program: "npm", args, shell: windows };
}

// Python --------------------------------------------------------------------

/**
 * What .venv is: the identity of its Python (null if it doesn't work or isn't the one
 * that the stamp was written for) and whether it has all of some requirements.
 */
async function environment() {
  const answer = await ask(venvPython, "import sys, pip; print(sys.version, sys.base_prefix)");
  const stamp = parseStamp(await readText(path.join(venv, "setup.json")));
  const broken = !answer.ok || (await exists(unfinished)) || isTooOld(answer.output)
    || (stamp && stamp.identity !== answer.output);
  return {
    identity: broken ? null : answer.output,
    has: (/** @type {Record<string, string>} */ wanted) => !broken && stamp !== null
      && Object.entries(wanted).every(([file, hash]) => stamp.requirements[file] === hash),
  };
}

/** @typedef {{identity: string, requirements: Record<string, string>}} Stamp */

/**
 * @param {string | null} text
 * @returns {Stamp | null}
 */
function parseStamp(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

/** @param {Stamp} stamp */
const writeStamp = (stamp) =>
  writeWhole(path.join(venv, "setup.json"), JSON.stringify(stamp, null, 2));

/** @returns {Promise<string>} the identity of the new environment's Python */
async function makeEnvironment() {
  const python = await findPython();
  say(`${(await exists(venv)) ? "Remaking" : "Creating"} .venv …`);
  await rm(venv, { recursive: true, force: true });
  await mkdir(venv);
  await writeFile(unfinished, "");
  await attempt("Python could not create .venv", { program: python, args: ["-m", "venv", venv] });
  await rm(unfinished);
  const { identity } = await environment();
  if (identity === null) throw new UserError(`The Python in .venv does not work (${python} made it).`);
  return identity;
}

/** @returns {Promise<string>} the path of a Python that is new enough and can make environments */
async function findPython() {
  const names = ["python3", "python", ...[14, 13, 12, 11].map((minor) => `python3.${minor}`)];
  const candidates = [...names.map((name) => [name]), ["py", "-3"]];
  // The version is written first, so that it is known of a Python without ensurepip too.
  const probe = "import sys; print(sys.version.split()[0]); sys.stdout.flush(); "
    + "import ensurepip, venv; print(sys._base_executable)";
  let old = "";
  let incomplete = "";
  for (const [program, ...args] of candidates) {
    const [version, executable] = (await ask(program, probe, args)).output.split(/\r?\n/);
    if (!version) continue;
    if (isTooOld(version)) old ||= version;
    else if (executable) return executable;
    else incomplete ||= version;
  }
  const oldest = oldestPython.join(".");
  if (incomplete) throw new UserError(
    `Python ${incomplete} cannot make virtual environments: its ensurepip is missing. `
    + "Install it (Debian, Ubuntu: sudo apt install python3-venv) and run this again.");
  throw new UserError(old
    ? `Python ${oldest} or newer is needed; here is ${old}. Install one and run this again.`
    : `No Python found. Install Python ${oldest} or newer and run this again.`);
}

/** @param {string} version starts with "3.11.7" or the like */
function isTooOld(version) {
  const [major, minor] = version.split(".").map(Number);
  return major < oldestPython[0] || (major === oldestPython[0] && minor < oldestPython[1]);
}

/**
 * @param {string} program
 * @param {string} code Python
 * @param {string[]} [args]
 */
async function ask(program, code, args = []) {
  try {
    const { stdout } = await promisify(execFile)(program, [...args, "-c", code], { timeout: 20_000 });
    return { ok: true, output: stdout.trim() };
  } catch (error) {
    const { stdout } = /** @type {{stdout?: string}} */ (error);
    return { ok: false, output: (stdout ?? "").trim() };
  }
}

/**
 * pip writes a package's RECORD last, but takes one without it for installed.
 */
async function forgetHalfInstalledPackages() {
  const lib = path.join(venv, windows ? "Lib" : "lib");
  const parents = windows ? [lib] : (await readdir(lib)).map((name) => path.join(lib, name));
  for (const packages of parents.map((parent) => path.join(parent, "site-packages")))
    for (const name of await readdir(packages).catch(() => []))
      if (name.endsWith(".dist-info") && !(await exists(path.join(packages, name, "RECORD"))))
        await rm(path.join(packages, name), { recursive: true });
}

/**
 * The hash of a requirements file and of each file that it includes.
 * @param {string} file relative to the repository
 * @returns {Promise<Record<string, string>>}
 */
async function requirementHashes(file) {
  const text = await readFile(path.join(root, file), "utf8");
  const hashes = { [file]: sha256(text) };
  for (const [, included] of text.matchAll(/^\s*(?:-r|-c|--requirement|--constraint)[ =]*(\S+)/gm))
    Object.assign(hashes, await requirementHashes(path.posix.join(path.posix.dirname(file), included)));
  return hashes;
}

// Both ----------------------------------------------------------------------

/**
 * Runs one step, its output on standard error.
 * @param {string} failure
 * @param {{program: string, args: string[], shell?: boolean}} step
 */
async function attempt(failure, { program, args, shell }) {
  const started = (/** @type {number} */ pid) => void appendFile(lock, ` ${pid}`);
  const { code, interrupted } = await run(program, args, { shell, started, stdio: ["ignore", 2, 2] })
    .catch((error) => ({ code: error.code, interrupted: false }));
  if (interrupted) throw new UserError("Interrupted: the next run goes on from here.", 130);
  if (code !== 0) throw new UserError(
    `${failure} (${code === "ENOENT" ? `${program} is not there` : "the reason is above"}). `
    + "Put that right, or check the network, and run this again.");
}

/**
 * Runs work while no other command sets this checkout up.
 * @template T
 * @param {() => Promise<T>} work
 */
async function locked(work) {
  for (let waits = 0; !(await takeLock()); waits++) {
    if (waits === 0) say("Waiting for another command that is setting this up …");
    await sleep(300);
  }
  try {
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

/**
 * The lock names the process that holds it and those that it started: it is stale when
 * all are gone (a killed npm may have left a pip that is still at work).
 */
async function takeLock() {
  try {
    const holders = (await readFile(lock, "utf8")).trim().split(/\s+/).map(Number);
    const { mtimeMs } = await stat(lock);
    const beforeReboot = mtimeMs < Date.now() - uptime() * 1000;
    if (holders.some(isRunning) && !beforeReboot) return false;
    await rm(lock, { force: true });
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  try {
    await writeFile(lock, String(process.pid), { flag: "wx" });
  } catch {
    return false;
  }
  // Somebody who saw the same stale lock may have removed ours for it.
  await sleep(50);
  return (await readText(lock)) === String(process.pid);
}

/** @param {number} pid */
function isRunning(pid) {
  try {
    return pid > 0 && process.kill(pid, 0);
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === "EPERM";
  }
}

/** @param {unknown} error */
const isMissing = (error) => /** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT";

/** @param {string} file */
const exists = (file) => access(file).then(() => true, () => false);

/** @param {string} file */
const readText = (file) => readFile(file, "utf8").catch(() => null);

/** @param {string} text */
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
