/** npm start: sets up, serves the lectures, and opens one in the browser. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { UserError, root, runCommand, say } from "./command.mjs";
import { deckRenderer, existingDeck, forgottenDecks } from "./decks.mjs";
import { otherJupyter, parseAddress, startJupyter } from "./jupyter.mjs";
import { KernelProxy } from "./kernel-proxy.mjs";
import { setUpNode, setUpPython } from "./setup.mjs";

const usage = "Usage: npm start -- [slides/DECK.md] [--port N] [--host H] [--jupyter URL] [--no-open]";

await runCommand(async () => {
  const { deck, host, port, open, address } = await commandLine();
  let jupyter = address ? await otherJupyter(address) : null;
  await setUpNode();

  const { serve } = await import("./serve.mjs");
  const kernels = new KernelProxy(() => jupyter?.target ?? null);
  const server = await serve({ root, host, port, renderDeck: await deckRenderer(root), kernels });
  if (port && server.port !== port) say(`Port ${port} is taken; this is ${server.port}.`);
  const link = `${server.url}/enter#key=${kernels.newKey()}&deck=${encodeURIComponent(deck)}`;
  const page = path.join(root, `out/open-${server.port}.html`);

  let ending = false;
  const end = async () => {
    ending = true;
    await Promise.all([server.close(), jupyter?.close(), rm(page, { force: true })]);
    process.exit();
  };
  process.once("SIGINT", end).once("SIGTERM", end).once("SIGHUP", end);

  for (const line of (await forgottenDecks(root)).values()) say(line);
  console.log(`The lectures are at ${server.url} (Ctrl-C ends).`);
  if (open) await openInBrowser(link, page);
  else console.log(`With live code, for one browser: ${link}`);

  if (!jupyter) await setUpPython("requirements.txt").then((python) => {
    if (!ending) jupyter = startJupyter(python);
  }).catch((error) => {
    if (!(error instanceof UserError)) throw error;
    if (!ending) say(`${error.message} The decks are shown all the same.`);
  });
});

/** @returns {Promise<{deck: string, host: string, port: number, open: boolean, address?: string}>} */
async function commandLine() {
  const { values, positionals } = parsed();
  if (positionals.length > 1) throw new UserError(`One deck at a time. ${usage}`, 2);
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535)
    throw new UserError(`--port ${values.port}: a port is a number from 0 to 65535.`, 2);
  if (!values.host) throw new UserError("--host: give a name or an address of this machine.", 2);
  const deck = positionals.length ? await existingDeck(root, positionals[0], 2) : "";
  const address = values.jupyter && parseAddress(values.jupyter).href;
  return { deck, host: values.host, port, open: !values["no-open"], address };
}

function parsed() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        port: { type: "string", default: "1948" },
        host: { type: "string", default: "localhost" },
        jupyter: { type: "string" },
        "no-open": { type: "boolean", default: false },
      },
    });
  } catch (error) {
    const [mistake] = /** @type {Error} */ (error).message.split(/\.\s/);
    throw new UserError(`${mistake}. ${usage}`, 2);
  }
}

/**
 * The link has a key, which must not stand in a command line: so the browser opens a page that leads to it.
 * @param {string} link
 * @param {string} page a file, in a folder that a confined browser may read
 */
async function openInBrowser(link, page) {
  await mkdir(path.dirname(page), { recursive: true });
  await rm(page, { force: true });
  await writeFile(page, `<meta http-equiv="refresh" content="0; url=${link}">`, { mode: 0o600 });
  const { default: open } = await import("open");
  const browser = await open(page);
  browser.once("error", () => say(`No browser could be opened: go to ${link}`));
}
