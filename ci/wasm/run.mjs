// Runs a WASI program with node: node run.mjs PROGRAM DIRECTORY. The program sees DIRECTORY as
// /work.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, directory] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: ["program"], preopens: { "/work": directory } });
const module = await WebAssembly.compile(await readFile(program));
const imports = wasi.getImportObject();
// Older libraries have no threads. The functions that std would import for them are missing, and
// are not called.
for (const { module: from, name } of WebAssembly.Module.imports(module)) {
  imports[from] ??= {};
  imports[from][name] ??= () => {
    throw new Error(`${name} is missing`);
  };
}
process.exitCode = wasi.start(await WebAssembly.instantiate(module, imports));
