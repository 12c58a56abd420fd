// A page in a browser, driven over stdin and stdout by `pages.py`: it imports a module and calls
// what that exports, one call or event per line, as JSON.

import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import WebSocket from "ws";

const [module, storage] = process.argv.slice(2);

// What a browser has and Node may not. The storage is a file: it outlives the page.
globalThis.WebSocket ??= WebSocket;
Object.defineProperty(globalThis, "localStorage", {
  value: new Proxy(JSON.parse(readFileSync(storage, "utf8")), {
    set(items, name, value) {
      items[name] = String(value);
      writeFileSync(storage, JSON.stringify(items));
      return true;
    },
  }),
});

const chat = await import(pathToFileURL(module));
for await (const line of createInterface({ input: process.stdin })) {
  const { id, call, args } = JSON.parse(line);
  const tell = (event) => process.stdout.write(JSON.stringify({ id, ...event }) + "\n");
  const show = (shown) => tell({ shown });
  Promise.resolve(chat[call](...args, ...(call === "history" ? [] : [show]))).then(
    (result) => tell({ result: result ?? null }),
    (error) => tell({ failed: String(error?.message ?? error) }),
  );
}
process.exit(0);
