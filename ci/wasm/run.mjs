// Runs a WASI program with node, in a directory that is /work to it: node run.mjs PROGRAM DIRECTORY
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, directory] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: ["program"], preopens: { "/work": directory } });
const module = await WebAssembly.compile(await readFile(program));
const imports = wasi.getImportObject();
// Older libraries have no threads: what std would call for one is not there, and is not called.
for (const { module: from, name } of WebAssembly.Module.imports(module)) {
  imports[from] ??= {};
  imports[from][name] ??= () => {
    throw new Error(`${name} is not there`);
  };
}
process.exitCode = wasi.start(await WebAssembly.instantiate(module, imports));
