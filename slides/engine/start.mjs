/** npm start: sets up, serves the lectures, and opens one in the browser. */
import { parseArgs } from "node:util";
import { UserError, root, runCommand, say } from "./command.mjs";
import { deckRenderer, existingDeck } from "./decks.mjs";
import { setUpNode, setUpPython } from "./setup.mjs";

const usage = "Usage: npm start -- [slides/DECK.md] [--port N] [--host H] [--no-open]";

await runCommand(async () => {
  const { deck, host, port, open } = await commandLine();
  await setUpNode();

  const { serve } = await import("./serve.mjs");
  const server = await serve({ root, host, port, renderDeck: await deckRenderer(root) });
  if (port && server.port !== port) say(`Port ${port} is taken; this is ${server.port}.`);
  console.log(`The lectures are at ${server.url} (Ctrl-C ends).`);
  if (open) await openInBrowser(`${server.url}/${deck}`);

  let ending = false;
  const end = async () => {
    ending = true;
    await server.close();
    process.exit();
  };
  process.once("SIGINT", end).once("SIGTERM", end).once("SIGHUP", end);

  await setUpPython("requirements.txt").catch((error) => {
    if (!(error instanceof UserError)) throw error;
    if (!ending) say(`${error.message} The decks are shown all the same.`);
  });
});

/** @returns {Promise<{deck: string, host: string, port: number, open: boolean}>} */
async function commandLine() {
  const { values, positionals } = parsed();
  if (positionals.length > 1) throw new UserError(`One deck at a time. ${usage}`, 2);
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535)
    throw new UserError(`--port ${values.port}: a port is a number from 0 to 65535.`, 2);
  if (!values.host) throw new UserError("--host: give a name or an address of this machine.", 2);
  const deck = positionals.length ? await existingDeck(root, positionals[0], 2) : "";
  return { deck, host: values.host, port, open: !values["no-open"] };
}

function parsed() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        port: { type: "string", default: "1948" },
        host: { type: "string", default: "localhost" },
        "no-open": { type: "boolean", default: false },
      },
    });
  } catch (error) {
    const [mistake] = /** @type {Error} */ (error).message.split(/\.\s/);
    throw new UserError(`${mistake}. ${usage}`, 2);
  }
}

/** @param {string} url */
async function openInBrowser(url) {
  const { default: open } = await import("open");
  const browser = await open(url);
  browser.once("error", () => say(`No browser could be opened: go to ${url}`));
}
