/** The Jupyter server that runs the slides' code: our own, which ends with us, or another one. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { UserError, root, say } from "./command.mjs";

/**
 * @typedef {{url: URL, token: string, socketPath?: string}} Target where the kernels are; the URL ends in a slash
 * @typedef {{target: Target | null, close: () => Promise<void>}} Jupyter target is null while none answers
 */

const patience = 60_000; // milliseconds until it must have started
const shortLife = 20_000; // who ends sooner does not work

/**
 * Starts our own server, and another one whenever it should end before we do.
 * @param {string} python
 * @returns {Jupyter}
 */
export function startJupyter(python) {
  let closing = false;
  /** @type {import("node:child_process").ChildProcess | undefined} */
  let child;
  /** @type {Jupyter} */
  const jupyter = {
    target: null,
    close: async () => {
      closing = true;
      if (!child || child.exitCode !== null || child.signalCode) return;
      const ended = once(child, "exit");
      child.stdin?.end();
      await ended;
    },
  };
  const keepRunning = async () => {
    for (let failures = 0; !closing && failures < 3; ) {
      const began = Date.now();
      const token = randomBytes(32).toString("base64url");
      child = spawn(python, [path.join(root, "code/lab/kernels.py")], { cwd: root, stdio: ["pipe", "pipe", "inherit"] });
      const ended = once(child, "exit").catch(() => {});
      child.stdin?.on("error", () => {}).write(`${token}\n`);
      const address = await firstLine(child);
      if (address) jupyter.target = { ...targetAt(address), token };
      else child.kill();
      await ended;
      const socket = jupyter.target?.socketPath;
      if (socket) await rm(path.dirname(socket), { recursive: true, force: true }); // as the server does, if it can
      failures = Date.now() - began > shortLife ? 0 : failures + 1;
      jupyter.target = null;
      if (!closing) await sleep(500);
    }
    if (!closing) say("The Jupyter server does not start: the slides show recorded output.");
  };
  void keepRunning();
  return jupyter;
}

/**
 * @param {import("node:child_process").ChildProcess} child
 * @returns {Promise<string | null>} null if it ends without one
 */
async function firstLine(child) {
  if (!child.stdout) return null;
  const lines = createInterface({ input: child.stdout });
  const [line] = await Promise.race([
    once(lines, "line"),
    once(lines, "close").then(() => [null]),
    sleep(patience, [null], { ref: false }),
  ]);
  return line;
}

/** @param {string} address that code/lab/kernels.py prints: a URL, or the path of a Unix socket */
const targetAt = (address) =>
  address.startsWith("http") ? { url: new URL(address) } : { url: new URL("http://localhost/"), socketPath: address };

/**
 * A server that somebody else started. Its token comes from $JUPYTER_TOKEN, else it is asked for.
 * @param {string} address
 * @returns {Promise<Jupyter>}
 */
export async function otherJupyter(address) {
  const url = parseAddress(address);
  if (url.protocol === "http:" && !isLoopback(url.hostname))
    say(`--jupyter ${url}: the token and all code go there unencrypted; use https, or ssh -L to a port of this machine.`);
  const token = process.env.JUPYTER_TOKEN ?? (await askForToken(url));
  const answer = await fetch(new URL("api/status", url), { headers: { Authorization: `token ${token}` } })
    .catch((error) => {
      throw new UserError(`--jupyter ${url}: there is no answer (${error.cause?.code ?? error.message}).`);
    });
  if (answer.status === 401 || answer.status === 403)
    throw new UserError(`--jupyter ${url}: the server does not take this token; give it in $JUPYTER_TOKEN.`);
  if (!answer.ok || !answer.headers.get("content-type")?.includes("json"))
    throw new UserError(`--jupyter ${url}: this is no Jupyter server (status ${answer.status}).`);
  return { target: { url, token }, close: async () => {} };
}

/** @param {string} address */
export function parseAddress(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.username)
    throw new UserError(`--jupyter ${url?.search ? "takes no token" : address}: give the server's address, as in `
      + "http://localhost:8888/, and its token in $JUPYTER_TOKEN.", 2);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/** @param {string} name as a URL has it */
const isLoopback = (name) => /^(localhost|127(\.\d+){3}|\[::1\])$/.test(name);

/** @param {URL} url */
async function askForToken(url) {
  if (!process.stdin.isTTY) throw new UserError(`--jupyter ${url}: give the server's token in $JUPYTER_TOKEN.`, 2);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  const token = await terminal.question(`Token of ${url}: `);
  terminal.close();
  return token.trim();
}
