/**
 * For tests and the benchmark: the lectures of this folder with live code, by the Python or the Jupyter server of the
 * command line. Prints its address; on standard input it takes "key", for a key that lets a browser in, and "drop", to cut all WebSockets.
 */
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const engine = (/** @type {string} */ name) => import(pathToFileURL(path.resolve("slides/engine", name)).href);
const { deckRenderer } = await engine("decks.mjs");
const { otherJupyter, startJupyter } = await engine("jupyter.mjs");
const { KernelProxy } = await engine("kernel-proxy.mjs");
const { serve } = await engine("serve.mjs");

const [, , where] = process.argv;
const root = process.cwd();
const jupyter = where.startsWith("http") ? await otherJupyter(where) : startJupyter(where);
const kernels = new KernelProxy(() => jupyter.target);
/** @type {import("node:stream").Duplex[]} */
const sockets = [];
const upgrade = kernels.upgrade.bind(kernels);
kernels.upgrade = (/** @type {any} */ request, /** @type {any} */ socket, /** @type {any} */ head) => {
  sockets.push(socket);
  upgrade(request, socket, head);
};
const server = await serve({ root, port: 0, renderDeck: await deckRenderer(root), kernels });
console.log(server.url);

/** @type {Record<string, () => void>} */
const commands = {
  key: () => console.log(kernels.newKey()),
  drop: () => sockets.splice(0).forEach((socket) => socket.destroy()),
};
createInterface({ input: process.stdin }).on("line", (line) => commands[line]());
process.on("SIGTERM", async () => {
  await jupyter.close();
  process.exit();
});
