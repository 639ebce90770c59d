/**
 * Runs the checkout's Python: node slides/engine/python.mjs [--tests] ARGUMENTS…
 * Sets up what is missing first; --tests adds what only tests need.
 */
import { run, runCommand } from "./command.mjs";
import { setUpNode, setUpPython } from "./setup.mjs";

await runCommand(async () => {
  const args = process.argv.slice(2);
  const forTests = args[0] === "--tests";
  await setUpNode();
  const python = await setUpPython(forTests ? "tests/requirements.txt" : "requirements.txt");
  const { code } = await run(python, forTests ? args.slice(1) : args);
  process.exitCode = code;
});
