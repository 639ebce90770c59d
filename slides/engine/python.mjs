/**
 * Runs the checkout's Python: node slides/engine/python.mjs [--tests] SCRIPT | -m MODULE, ARGUMENTS…
 * Sets up what is missing first; --tests adds what only tests need. A script runs where the user stands, a module (the
 * tests) in the repository, with paths that are there for the user.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { here, root, run, runCommand } from "./command.mjs";
import { setUpNode, setUpPython } from "./setup.mjs";

await runCommand(async () => {
  const forTests = process.argv[2] === "--tests";
  const [first, ...others] = process.argv.slice(forTests ? 3 : 2);
  await setUpNode();
  const python = await setUpPython(forTests ? "tests/requirements.txt" : "requirements.txt");
  const { code } = first.startsWith("-")
    ? await run(python, [first, ...others.map(fromRoot)])
    : await run(python, [path.resolve(root, first), ...others], { cwd: here });
  process.exitCode = code;
});

/** @param {string} argument of pytest: a path, perhaps with the name of a test, or something else */
function fromRoot(argument) {
  const [file] = argument.split("::");
  const found = path.resolve(here, file);
  return here !== path.resolve(root) && file && existsSync(found) ? found + argument.slice(file.length) : argument;
}
