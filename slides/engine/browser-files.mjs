/**
 * Copies the libraries that the browser needs from node_modules/ to static/lib/, and bundles live code with its own.
 * Runs after `npm ci` (postinstall), and writes nothing where all is up to date.
 */
import { mkdir, readFile, readdir, realpath, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Target in static/lib/ -> source in node_modules/. */
const files = {
  "reveal/reveal.js": "reveal.js/dist/reveal.esm.js",
  "reveal/reveal.css": "reveal.js/dist/reveal.css",
  "reveal/reset.css": "reveal.js/dist/reset.css",
  "reveal/plugin/notes.js": "reveal.js/plugin/notes/notes.esm.js",
  "reveal/plugin/zoom.js": "reveal.js/plugin/zoom/zoom.esm.js",
  "katex/katex.min.css": "katex/dist/katex.min.css",
  "mermaid/mermaid.min.js": "mermaid/dist/mermaid.min.js",
};

/** So that tsc takes the modules above as they are. */
const declaration = "declare const module: any;\nexport default module;\n";

/** @param {string} [folder] the repository */
export async function copyBrowserFiles(folder = root) {
  const modules = path.join(folder, "node_modules");
  const library = path.join(folder, "static/lib");
  const fonts = (await readdir(path.join(modules, "katex/dist/fonts")))
    .filter((name) => name.endsWith(".woff2"))
    .map((name) => [`katex/fonts/${name}`, `katex/dist/fonts/${name}`]);
  for (const [target, source] of [...Object.entries(files), ...fonts]) {
    await writeIfChanged(path.join(library, target), await readFile(path.join(modules, source)));
    if (source.endsWith(".esm.js"))
      await writeIfChanged(path.join(library, target.replace(/js$/, "d.ts")), Buffer.from(declaration));
  }
  await writeIfChanged(path.join(library, "live.js"), await bundle(modules, path.join(folder, "static/live/live.js")));
  await writeIfChanged(path.join(library, "live.d.ts"), Buffer.from("export {};\n"));
}

/** @param {string} modules @param {string} entry */
async function bundle(modules, entry) {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    alias: { katex: path.join(modules, "katex/dist/katex.mjs") }, // once, also for who requires it
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  return Buffer.from(outputFiles[0].contents);
}

/**
 * Contents are compared, not times: npm gives all files of all versions one date.
 * @param {string} file
 * @param {Buffer} wanted
 */
async function writeIfChanged(file, wanted) {
  const present = await readFile(file).catch(() => null);
  if (present?.equals(wanted)) return;
  await mkdir(path.dirname(file), { recursive: true });
  const unfinished = `${file}.${process.pid}.tmp`;
  await writeFile(unfinished, wanted);
  await rename(unfinished, file);
}

if (process.argv[1] && (await realpath(process.argv[1])) === fileURLToPath(import.meta.url)) await copyBrowserFiles();
